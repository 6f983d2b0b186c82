"""Shell completion: `lit-mimdit --print_completion bash`, or zsh.

The script holds every command with its options, so that the shell starts no Python for a Tab.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from lit_mimdit.signatures import signature_of

SHELLS = ("bash", "zsh")
PROGRAM = "lit-mimdit"
# of fit, validate, test and predict: what one types most; a YAML holds the rest
TRAINER_OPTIONS = {
    "-c": [],
    "--config": [],
    "--ckpt_path": [],
    "--resume": ["auto", "never"],
    "--dry-run": [],
    "--help": [],
    "--help_all": [],
    "--print_config": [],
    "--seed_everything": [],
    "--matmul_precision": ["highest", "high", "medium"],
    "--trainer.accelerator": ["auto", "cpu", "gpu", "mps"],
    "--trainer.accumulate_grad_batches": [],
    "--trainer.devices": ["auto"],
    "--trainer.fast_dev_run": ["true", "false"],
    "--trainer.max_epochs": [],
    "--trainer.max_steps": [],
    "--trainer.num_nodes": [],
    "--trainer.precision": ["32-true", "bf16-mixed", "bf16-true", "16-mixed"],
    "--trainer.strategy": [],
    "--trainer.val_check_interval": [],
    "--data.init_args.batch_size": [],
    "--data.init_args.workers": [],
    "--model.init_args.backbone": [],
}


def choices(annotation: Any) -> list[str]:
    """Returns the words that an option may take, if it takes words only."""
    if annotation is bool:
        return ["true", "false"]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    words: list[str] = []
    for part in get_args(annotation):
        words += [] if part is bool else choices(part)
    return words


def options_of(module: str, function: str) -> dict[str, list[str]]:
    """Returns the options of a command, each with the words that it may take."""
    parameters = inspect.signature(signature_of(module, function), eval_str=True).parameters
    named = [p for p in parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    values = {f"--{p.name}": choices(p.annotation) for p in named}
    values |= {
        short: [] for short, option in (("-o", "--output"), ("-c", "--config")) if option in values
    }
    return values | {"--help": []}


def script(
    shell: str, trainer: Mapping[str, str], commands: Mapping[str, tuple[str, str, str]]
) -> str:
    """Returns the text that a shell sources.

    Args:
        shell: bash or zsh.
        trainer: commands that a YAML drives.
        commands: name -> (module, function, help) of the others.

    Raises:
        ValueError: for another shell.
    """
    if shell not in SHELLS:
        raise ValueError(f"--print_completion is {shell!r}: choose among {', '.join(SHELLS)}")
    every = dict.fromkeys(trainer, TRAINER_OPTIONS)
    every |= {name: options_of(*about[:2]) for name, about in commands.items()}
    groups: dict[str, list[str]] = {}
    for name in every:
        first, _, second = name.partition(" ")
        words = groups.setdefault(first, [])
        if second:
            words.append(second)
    top = " ".join([*groups, "--help", "--version", "--print_completion"])
    lines = [
        "_lit_mimdit() {",
        '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
        '    local command="${COMP_WORDS[1]}" words=""',
        f'    if [ "$COMP_CWORD" -eq 1 ]; then words="{top}"; else',
        '    case "$command" in',
    ]
    for first, seconds in groups.items():
        if seconds:
            lines += [f"    {first})"]
            lines += [
                f'        if [ "$COMP_CWORD" -eq 2 ]; then words="{" ".join(seconds)}"; else',
                '        case "${COMP_WORDS[2]}" in',
            ]
            for second in seconds:
                lines += [
                    f"        {second})",
                    *_cases(every[f"{first} {second}"]),
                    "            ;;",
                ]
            lines += ["        esac; fi ;;"]
        else:
            lines += [f"    {first})", *_cases(every[first]), "        ;;"]
    lines += [
        "    esac; fi",
        '    COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "}",
        f"complete -o default -F _lit_mimdit {PROGRAM}",
    ]
    head = ["autoload -U +X compinit && compinit", "autoload -U +X bashcompinit && bashcompinit"]
    return "\n".join([*(head if shell == "zsh" else []), *lines]) + "\n"


def _cases(options: dict[str, list[str]]) -> list[str]:
    """Shell lines: words after an option that takes them, else the options after a dash."""
    known = [f'{name}) words="{" ".join(words)}" ;;' for name, words in options.items() if words]
    rest = f'*) case "$word" in -*) words="{" ".join(options)}" ;; esac ;;'
    return ['            case "$before" in', *(f"            {line}" for line in known),
            f"            {rest}", "            esac"]  # fmt: skip
