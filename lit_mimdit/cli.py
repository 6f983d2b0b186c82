"""The command line.

`fit`, `validate`, `test` and `predict` are LightningCLI's, driven by one YAML. Every other command
is a plain function whose signature is its parser and whose docstring is its help.
"""

import os
import re
import sys
import traceback
from pathlib import Path

from lit_mimdit.console import accept_everything, nobody_reads
from lit_mimdit.quiet import SHOW_ALL, hush
from lit_mimdit.trainer_help import trainer_help

SCRIPT = "lit-mimdit"

TRAINER_COMMANDS = {
    "fit": "train, and validate while training",
    "validate": "validate a checkpoint",
    "test": "evaluate a checkpoint on the test split and print its table",
    "predict": "restore the images a YAML names",
}
# command -> (module, function, one line of help); imported on use: `restore --help` must not wait
# for everything
COMMANDS = {
    "restore": ("lit_mimdit.inference.restore", "restore", "restore photographs of any size"),
    "classical": (
        "lit_mimdit.systems.classical",
        "classical",
        "restore with a classical tool, to compare with",
    ),
    "export": (
        "lit_mimdit.sharing.export",
        "export",
        "write a checkpoint's trained branch as safetensors, or upload it to the hub",
    ),
    "import-weights": (
        "lit_mimdit.systems.import_weights",
        "import_weights",
        "turn a file that authors released into one that restores here",
    ),
    "sample-data": (
        "lit_mimdit.data.sample_data",
        "write_sample_data",
        "write a small FoundIR-layout data set",
    ),
    "data check": (
        "lit_mimdit.data.check",
        "check",
        "check a data set: pairs, sizes, problems, a contact sheet",
    ),
    "data shard": (
        "lit_mimdit.data.shards.write",
        "shard",
        "write a data set as shards, to stream from a network disk or S3",
    ),
    "data latents": (
        "lit_mimdit.latent_shards",
        "latents",
        "encode shards with the VAE, for training that skips it",
    ),
    "data teacher": (
        "lit_mimdit.teacher_shards",
        "teacher",
        "restore latents in many steps, for a student that learns to make a few",
    ),
    "evaluate": (
        "lit_mimdit.evaluation.evaluate",
        "evaluate",
        "score any method's restored images against their references",
    ),
    "ablate": (
        "lit_mimdit.ablation.command",
        "ablate",
        "train variants with several seeds, and test each claim with an interval",
    ),
    "report": (
        "lit_mimdit.evaluation.report",
        "report",
        "one page of finished evaluations: tables, plots, best and worst cases",
    ),
    "routing": (
        "lit_mimdit.routing.command",
        "routing",
        "what each expert does for each degradation, beside the paper's table 6",
    ),
    "demo": (
        "lit_mimdit.demo_page.command",
        "demo",
        "open a local page: restore, compare, and see the routers decide",
    ),
    "metrics": (
        "lit_mimdit.evaluation.listing",
        "metrics",
        "list the metrics, their weights, and which can run here",
    ),
}
TRACEBACK = "LIT_MIMDIT_TRACEBACK"
UNREAD = 141  # 128 + SIGPIPE


def usage() -> str:
    """Returns the text of `lit-mimdit --help`."""
    lines = [
        f"usage: {program()} COMMAND [options]      (COMMAND --help teaches each)",
        "",
        "With a YAML (-c experiments/NAME.yaml):",
    ]
    lines += [f"  {name:12} {text}" for name, text in TRAINER_COMMANDS.items()]
    lines += ["", "By themselves:"] + [
        f"  {name:12} {text}" for name, (_, _, text) in COMMANDS.items()
    ]
    lines += [
        "",
        f"Errors are one line; set {TRACEBACK}=1 for the whole traceback.",
        f"Remarks of libraries are hidden; set {SHOW_ALL}=1 to see them.",
        "Completion of the shell: --print_completion bash, or zsh.",
    ]
    return "\n".join(lines)


def program() -> str:
    """Returns how the user called this package: by its script or by python -m."""
    return SCRIPT if Path(sys.argv[0]).stem == SCRIPT else "python -m lit_mimdit"


# what to do about messages of jsonargparse, which do not say it
REMEDIES = {
    "unrecognized arguments|does not accept option": (
        "see the keys there are with --help, or --print_config behind a command that works"
    ),
    "not correspond to a subclass of LightningModule": (
        "derive it from lit_mimdit.systems.base.RestorationSystem"
    ),
    "Problem with given class_path": "mend the name, or install what has it",
}


def one_line(error: BaseException) -> str:
    """Returns the message of an error without line breaks.

    An error in a loader's process is cut to its last line. Where jsonargparse says why each type of
    a union does not fit, only the first reason is kept.
    """
    text = str(error).strip() or type(error).__name__
    if "\nOriginal Traceback" in text:
        text = text.splitlines()[-1].split(": ", 1)[-1]
    while match := re.search(
        r"Does not validate against any of the Union subtypes.*?Errors:\n( *)- ", text, re.DOTALL
    ):
        first = re.split(rf"\n{match[1]}- |\n *Given value", text[match.end() :])[0]
        text = text[: match.start()] + first
    text = " ".join(text.split())
    remedies = [remedy for words, remedy in REMEDIES.items() if re.search(words, text)]
    return "; ".join([text, *remedies[:1]])


def user_errors() -> tuple[type[Exception], ...]:
    """Returns what is the user's to mend, and not a defect of this program."""
    from argparse import ArgumentError

    # an error of Lightning's can only come from where Lightning is loaded
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    own = () if lightning is None else (lightning.MisconfigurationException,)
    return ValueError, OSError, ArgumentError, *own


def print_completion(args: list[str]) -> int:
    """`--print_completion SHELL`: a script that the shell sources."""
    from lit_mimdit.completion import script

    try:
        print(script(args[0] if args else "", TRAINER_COMMANDS, COMMANDS), end="")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run a command; user errors end in one line on stderr and exit status 2.

    Where nobody reads stdout any more, as behind `| head`, it ends in silence, with the status
    that a shell gives for it.
    """
    accept_everything()
    hush()
    status, unread = UNREAD, False
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # of a text longer than stdout's buffer
        unread = nobody_reads()
        if not unread:
            raise
    finally:  # --help leaves by SystemExit
        unread = nobody_reads() or unread
    return UNREAD if unread else status


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0
    if args[0] == "--version":
        from lit_mimdit import __version__

        print(__version__)
        return 0
    if args[0] == "--print_completion":
        return print_completion(args[1:])
    name = next((c for c in COMMANDS if args[: len(c.split())] == c.split()), None)
    if name is None and args[0] not in TRAINER_COMMANDS:
        print(f"error: no command {args[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    if name is None and args[1:] in (["-h"], ["--help"]):
        print(trainer_help(args[0], TRAINER_COMMANDS[args[0]], program()))
        return 0
    try:
        if name is None:
            from lit_mimdit.training.command import run_trainer

            args = ["--help" if a in ("--help_all", "--help-all") else a for a in args]
            run_trainer(args, program())
            return 0
        module, function, _ = COMMANDS[name]
        from lit_mimdit.function_command import run_function

        rest = args[len(name.split()) :]
        return run_function(f"{program()} {name}", module, function, rest)
    except user_errors() as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            return UNREAD
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        from lit_mimdit.training.lost import lost_contact

        said = lost_contact(error)
        if said is None:
            raise
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        print(f"error: {said}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
