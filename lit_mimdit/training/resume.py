"""`resume: auto`: which checkpoint a run goes on from."""

import zipfile
from pathlib import Path

import lightning as L
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn

from lit_mimdit.inference.system_file import KEY, read_checkpoint


def problem_of(path: Path) -> str | None:
    """Returns why a checkpoint cannot be resumed from, or None.

    Every byte is checked against its checksum, and the checkpoint must be of a run.
    """
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
        if broken is not None:
            return f"{path}: {broken} in it does not match its checksum"
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f"{path}: incomplete or damaged ({error})"
    try:
        missing = {KEY, "loops", "optimizer_states"} - read_checkpoint(path).keys()
    except ValueError as error:
        return str(error)
    return (
        f"{path}: no checkpoint of a run, {', '.join(sorted(missing))} missing" if missing else None
    )


def newest_valid(folder: Path) -> tuple[Path | None, list[str]]:
    """Returns the youngest checkpoint of a folder that is whole, and what is wrong with those that
    are younger, and with unfinished files.
    """
    problems = [
        f"{part}: {part.stat().st_size / 2**20:.1f} MiB of a checkpoint that was never finished;"
        " delete it"
        for part in sorted(folder.glob(".*.part"))
    ]
    for path in sorted(
        folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True
    ):
        problem = problem_of(path)
        if problem is None:
            return path, problems
        problems.append(problem)
    return None, problems


def checkpoint_to_resume(resume: str, folders: list[str | Path | None]) -> Path | None:
    """Returns what the option `resume` means: "auto" looks through `folders` and names what is
    broken there; else a path.

    Raises ValueError if the path is none, or if "auto" has no folder to look into.
    """
    if resume != "auto":
        path = Path(resume)
        problem = (
            problem_of(path)
            if path.is_file()
            else f"{resume!r} is neither auto, nor never, nor a file"
        )
        if problem is not None:
            raise ValueError(f"resume: {problem}")
        return path
    known = [Path(folder) for folder in folders if folder]
    if not known:
        raise ValueError(
            "resume is auto, but no ModelCheckpoint in trainer.callbacks has a dirpath: set it, or"
            " resume: never"
        )
    newest = [newest_valid(folder) for folder in known if folder.is_dir()]
    for problem in (problem for _, problems in newest for problem in problems):
        rank_zero_warn(f"resume: skipped {problem}")
    return max(
        (path for path, _ in newest if path is not None),
        key=lambda path: path.stat().st_mtime_ns,
        default=None,
    )


class SameStart(L.Callback):
    """Stops the run if its processes do not start from the same checkpoint: then their folders are
    not one.

    Args:
        path: what this process found.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.world_size == 1:
            return
        names: list[str | None] = [None] * trainer.world_size
        dist.all_gather_object(names, None if self.path is None else self.path.name)
        other = next((rank for rank, name in enumerate(names) if name != names[0]), None)
        if other is not None:
            raise ValueError(
                f"resume: rank 0 found {names[0]}, rank {other} found {names[other]}: the"
                " checkpoints' folder must be on a file system that all nodes share"
            )
