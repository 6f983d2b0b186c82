"""The command line: the only place where configuration meets code.

`fit`, `validate`, `test` and `predict` are LightningCLI's, driven by one YAML; every other command
is a plain function whose signature is its parser and whose docstring is its help.
"""

import inspect
import json
import os
import re
import sys
import traceback
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from lit_mimdit.console import accept_everything
from lit_mimdit.quiet import SHOW_ALL, hush
from lit_mimdit.signatures import signature_of
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
        "lit_mimdit.inference.export",
        "export",
        "write a checkpoint's trained branch as safetensors",
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
    "metrics": (
        "lit_mimdit.evaluation.listing",
        "metrics",
        "list the metrics, their weights, and which can run here",
    ),
}
RESUME = (
    "auto: fit goes on from the newest whole checkpoint in the folder of the ModelCheckpoint, and"
    " starts anew (or from --ckpt_path) if there is none; never: it starts anew, or from"
    " --ckpt_path; or the checkpoint to go on from"
)
DRY_RUN = (
    "fit --dry-run: print the modules, the trained and frozen parameters and an estimate of the"
    " memory on each device, and do no more; it needs neither weights nor data nor GPUs. Say for"
    " how many: --trainer.devices 8 --trainer.num_nodes 2"
)
TRACEBACK = "LIT_MIMDIT_TRACEBACK"


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


def run_trainer(args: list[str]) -> None:
    """LightningCLI with omegaconf interpolation over the merged configuration."""
    from jsonargparse import set_parsing_settings
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
    from lightning.pytorch.utilities import rank_zero_info

    import lit_mimdit.training.strategies  # noqa: F401  their names
    from lit_mimdit.renamed import refuse_renamed
    from lit_mimdit.training.callbacks import ResultTable
    from lit_mimdit.training.resume import SameStart, checkpoint_to_resume
    from lit_mimdit.training.trainer import Trainer

    class CLI(LightningCLI):
        """Model and data are given by class_path; YAML and command line always beat what a
        checkpoint remembers.
        """

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            choices = Literal["highest", "high", "medium"]
            parser.add_argument(
                "--matmul_precision",
                type=choices,
                default="highest",
                help="torch.set_float32_matmul_precision",
            )
            parser.add_argument("--resume", type=str, default="never", help=RESUME)
            parser.add_argument("--dry_run", type=bool, default=False, help=DRY_RUN)

        def _parse_ckpt_path(self) -> None:
            """Nothing:

            otherwise the checkpoint's hyper-parameters silently win over YAML and command line.
            """

        def instantiate_classes(self) -> None:
            """Nothing, for a dry run:

            a logger would open its folder, and a strategy ask for its GPUs.
            """
            if not self.config[self.subcommand].dry_run:
                super().instantiate_classes()

        def _run_subcommand(self, subcommand: str) -> None:
            if not self.config[subcommand].dry_run:
                super()._run_subcommand(subcommand)
            elif subcommand != "fit":
                raise ValueError(f"--dry-run is of fit, not of {subcommand}")
            else:
                from lit_mimdit.training.dry_run import dry_run

                dry_run(self.config[subcommand].as_dict())

        def before_fit(self) -> None:
            """`resume`: the checkpoint to go on from."""
            fit = self.config_init.fit
            if fit.resume == "never":
                return
            path = checkpoint_to_resume(
                fit.resume, [getattr(c, "dirpath", None) for c in self.trainer.checkpoint_callbacks]
            )
            self.trainer.callbacks.insert(0, SameStart(path))
            if path is not None:
                rank_zero_info(
                    f"resume: going on from {path}"
                    + (f", not from --ckpt_path {fit.ckpt_path}" if fit.ckpt_path else "")
                )
                fit.ckpt_path = str(path)

        def after_fit(self) -> None:
            """The final weights' table, unless the run was cut short.

            Weights that training has just validated are not validated again.
            """
            trainer = self.trainer
            stopped = any(getattr(callback, "requested", False) for callback in trainer.callbacks)
            if stopped or trainer.fast_dev_run or trainer.limit_val_batches == 0:
                return
            if trainer.fit_loop.epoch_loop.validated_at == trainer.global_step:
                for callback in trainer.callbacks:
                    if isinstance(callback, ResultTable):
                        callback.show(trainer, self.model, "val")
            else:
                trainer.validate(self.model, datamodule=self.datamodule, verbose=False)

        def before_instantiate_classes(self) -> None:
            import torch

            torch.set_float32_matmul_precision(self.config[self.subcommand].matmul_precision)
            if self.subcommand == "predict":
                self.config.predict.return_predictions = False  # WriteRestored writes them; a folder of photographs does not fit in memory

    refuse_renamed(args)
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    args = ["--dry_run" if a == "--dry-run" else a for a in args]
    # bare flags mean true, as in Lightning's own documentation
    flags = ("--trainer.fast_dev_run", "--dry_run")
    bare = [
        i
        for i, a in enumerate(args)
        if a in flags and (i + 1 == len(args) or args[i + 1].startswith("-"))
    ]
    args = [f"{a}=true" if i in bare else a for i, a in enumerate(args)]
    sys.argv = [f"{sys.argv[0]}", *args]
    options = {"parser_mode": "omegaconf+", "exit_on_error": False}
    CLI(
        trainer_class=Trainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,  # the module's own configuration is the only one
        seed_everything_default=0,
        parser_kwargs={
            "prog": program(),
            **options,
            **dict.fromkeys(TRAINER_COMMANDS, options),
        },
        save_config_kwargs={"overwrite": True},
    )


def run_function(name: str, module: str, function: str, args: list[str]) -> int:
    """Parse `args` by a function's signature, then import its module and call it.

    Returns 1 if the function returns a number that is not 0, else 0.

    What the function takes by position is positional here too (as many as one likes, if it is a
    list); `output` also answers to -o, `config` to -c.
    """
    from docstring_parser import parse
    from jsonargparse import ArgumentParser

    light = signature_of(module, function)
    signature = inspect.signature(light, eval_str=True)
    text = parse(light.__doc__ or "")
    help_of = {p.arg_name: p.description for p in text.params}
    positional = [
        p for p in signature.parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    description = f"{text.short_description}\n\n{text.long_description or ''}"
    parser = ArgumentParser(
        prog=f"{program()} {name}", description=description, exit_on_error=False
    )
    short = {"output": "-o", "config": "-c"}
    by_hand = {p.name for p in positional} | (short.keys() & signature.parameters.keys())
    for p in positional:
        many = get_origin(p.annotation) is list
        kind = get_args(p.annotation)[0] if many else p.annotation
        parser.add_argument(p.name, nargs="+" if many else None, type=kind, help=help_of[p.name])
    for option in [name for name in short if name in by_hand]:
        parameter = signature.parameters[option]
        required = parameter.default is inspect.Parameter.empty
        extra = {"required": True} if required else {"default": parameter.default}
        parser.add_argument(
            short[option], f"--{option}", type=parameter.annotation, help=help_of[option], **extra
        )
    parser.add_function_arguments(light, skip=by_hand)
    flags = {
        f"--{name}"
        for name, parameter in signature.parameters.items()
        if parameter.annotation is bool
    }
    bare = [
        i
        for i, a in enumerate(args)
        if a in flags and args[i + 1 : i + 2] not in (["true"], ["false"])
    ]  # a bare flag means true
    args = [f"{a}=true" if i in bare else a for i, a in enumerate(args)]
    args = join_lists(
        args,
        {
            f"--{name}"
            for name, parameter in signature.parameters.items()
            if _is_list(parameter.annotation)
        },
    )
    values = vars(parser.instantiate(parser.parse_args(args)))
    given = [values.pop(p.name) for p in positional]
    result = getattr(import_module(module), function)(*given, **values)
    return int(bool(result)) if isinstance(result, int) else 0


def _is_list(annotation: Any) -> bool:
    """Whether an annotation is a list, or a list or None."""
    return get_origin(annotation) is list or any(
        get_origin(part) is list for part in get_args(annotation)
    )


def join_lists(args: list[str], flags: set[str]) -> list[str]:
    """`--checkpoint a b` as jsonargparse takes it:

    `--checkpoint ["a", "b"]`. A value that is a list already, or null, stays.
    """
    joined: list[str] = []
    while args:
        flag, *args = args
        values = (
            list(takewhile(lambda value: not value.startswith("-"), args)) if flag in flags else []
        )
        args = args[len(values) :]
        plain = len(values) != 1 or values[0] != "null" and not values[0].startswith("[")
        joined += [flag, json.dumps(values)] if values and plain else [flag, *values]
    return joined


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks: of an error in a loader's process its last line,
    of jsonargparse's account why each type of a union does not fit the first reason."""
    text = str(error).strip() or type(error).__name__
    if "\nOriginal Traceback" in text:
        text = text.splitlines()[-1].split(": ", 1)[-1]
    while found := re.search(
        r"Does not validate against any of the Union subtypes.*?Errors:\n( *)- ", text, re.DOTALL
    ):
        first = re.split(rf"\n{found[1]}- |\n *Given value", text[found.end() :])[0]
        text = text[: found.start()] + first
    text = " ".join(text.split())
    unknown = re.search("unrecognized arguments|does not accept option", text)
    return (
        f"{text}; see the keys there are with --help, or --print_config behind a command that works"
        if unknown
        else text
    )


def user_errors() -> tuple[type[Exception], ...]:
    """What is the user's to mend, and not a defect of this program."""
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
    """Run a command; user errors end in one line on stderr and exit status 2."""
    args = list(sys.argv[1:] if argv is None else argv)
    accept_everything()
    hush()
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
            run_trainer(["--help" if a in ("--help_all", "--help-all") else a for a in args])
            return 0
        module, function, _ = COMMANDS[name]
        return run_function(name, module, function, args[len(name.split()) :])
    except user_errors() as error:
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
