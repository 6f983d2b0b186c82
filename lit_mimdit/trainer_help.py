"""`fit --help` and its like on one screen, without the seconds that Lightning takes to load."""

ROWS = (
    ("-c, --config FILE", "YAML with model, data and trainer; several are merged, the last wins"),
    ("--KEY VALUE", "any key of the YAML, such as --trainer.max_steps 1000; it beats the YAML"),
    ("--ckpt_path FILE", "checkpoint to load"),
    ("--print_config", "print the merged configuration and do no more"),
    ("--help_all", "every key of the trainer with its type and default"),
)
ROWS_OF_FIT = (
    ("--resume auto", "go on from the newest whole checkpoint of the run, or start anew"),
    ("--dry-run", "print parameters and an estimate of the memory, and do no more"),
    ("--trainer.fast_dev_run", "one batch of everything, to see that it runs"),
)


def trainer_help(command: str, about: str, program: str) -> str:
    """Returns the help of a command that a YAML drives.

    Args:
        command: fit, validate, test or predict.
        about: what it does, without a full stop.
        program: how the user called this package.
    """
    lines = [
        f"usage: {program} {command} -c FILE [--KEY VALUE ...]",
        "",
        f"{about[0].upper()}{about[1:]}.",
        "",
    ]
    rows = [*ROWS, *(ROWS_OF_FIT if command == "fit" else ())]
    lines += [f"  {option:24} {text}" for option, text in rows]
    example = f"{program} {command} -c experiments/quickstart.yaml --trainer.max_steps 100"
    return "\n".join([*lines, "", "Example:", f"  {example}"])
