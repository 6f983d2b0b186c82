"""A small JSON file beside restored images says how they were made.

A result can so name its checkpoint and settings.
"""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import lit_mimdit
from lit_mimdit.files import write_bytes
from lit_mimdit.inference.hub import origin

if TYPE_CHECKING:  # reading a record must not wait for diffusers
    from lit_mimdit.models.decisions import Decisions

NAME = "restoration.json"
FORMAT = "lit_mimdit.restoration.1"


def commit() -> str | None:
    """Returns the commit of this source tree, with "-dirty" if files differ from it; None for an
    installed package.
    """
    package = Path(lit_mimdit.__file__).parent
    git = ["git", "-C", str(package)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 30}
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], **options)
        if top.returncode or Path(top.stdout.strip()).resolve() != package.parent.resolve():
            return None
        answer = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], **options
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def file_hash(path: Path) -> str:
    """Returns the sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def config_hash(values: Any) -> str:
    """Returns the first 16 digits of the sha256 of plain values as sorted JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def describe_run(restorer: Any, checkpoint: Path | None, seed: int | str) -> dict[str, Any]:
    """Returns everything that decides what a restored image looks like.

    Args:
        restorer: what restores; its `record` tells its own part.
        checkpoint: the system's file; None if its weights are in memory only. The record of one
            from the hub also has its repository and commit, and that of imported weights the names
            of the authors' files.
        seed: of the noise, or in words how each image got its own.
    """
    from lit_mimdit.inference.system_file import official_files

    recorded = restorer.record()
    hub = None if checkpoint is None else origin(checkpoint)
    official = [] if checkpoint is None else official_files(checkpoint)
    return {
        "format": FORMAT,
        "lit_mimdit": lit_mimdit.__version__,
        "commit": commit(),
        "checkpoint": (
            None
            if checkpoint is None
            else {"name": checkpoint.name, "sha256": file_hash(checkpoint)}
            | ({} if hub is None else {"hub": hub})
            | ({"official": official} if official else {})
        ),
        **recorded,
        "seed": seed,
        "device": str(restorer.device),
        "torch": torch.__version__,
    }


def inter_weights(decisions: "Decisions") -> list[list[float]]:
    """Returns Inter-MoE weights by block, (blocks, groups), of one image: the mean over its
    tiles.
    """
    means = [mim.inter.weights.float().mean(0).tolist() for mim in decisions]
    return [[round(value, 4) for value in row] for row in means]


def write_record(folder: Path, run: dict[str, Any], images: dict[str, list[list[float]]]) -> None:
    """Write `restoration.json` about a run.

    It has the Inter-MoE weights by block of each image, by its path below the folder.
    """
    write_bytes(folder / NAME, (json.dumps(run | {"images": images}, indent=1) + "\n").encode())


def read_records(folder: Path) -> dict[str, Any] | None:
    """Returns the records of a folder and all below it as one, images named below the folder; None
    without any.

    Folders made with other settings give {"mixed": [each of them]} with the images.
    """
    made: list[dict[str, Any]] = []
    images: dict[str, list[list[float]]] = {}
    for path in sorted(folder.rglob(NAME)):
        run = read_record(path.parent)
        assert run is not None, path
        below = path.parent.relative_to(folder)
        images |= {
            (below / name).as_posix(): weights for name, weights in run.pop("images").items()
        }
        made += [one for one in runs_of(run) if one not in made]
    if not made:
        return None
    return (made[0] if len(made) == 1 else {"format": FORMAT, "mixed": made}) | {"images": images}


def runs_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what a record tells of each call that restored into its folder."""
    alone = {key: value for key, value in record.items() if key not in ("images", "files")}
    return alone.get("mixed", [alone])


def read_record(folder: Path) -> dict[str, Any] | None:
    """Returns the record of a folder, or None. ValueError for a file of another kind."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path}: not readable as JSON ({error}); remove it to evaluate without a record"
        ) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(
            f"{path}: not a restoration record of this version; remove it to evaluate without a"
            " record"
        )
    return values
