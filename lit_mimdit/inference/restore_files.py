"""Planned photographs are restored one after the other, and what fails is named."""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tqdm import tqdm

from lit_mimdit.console import printable
from lit_mimdit.data.image_io import (
    ImageError,
    Metadata,
    Photo,
    encode_photo,
    held,
    losses,
    read_photo,
    require_writable,
)
from lit_mimdit.files import FileError, write_bytes
from lit_mimdit.inference.folder_record import FolderRecord
from lit_mimdit.inference.plan import Plan, require_free
from lit_mimdit.inference.run_record import inter_weights


def carry_out(
    restorer: Any, made: Plan, run: dict[str, Any], overwrite: bool, strip_metadata: bool
) -> int:
    """Restore what is planned, and name on stderr what could not be restored.

    Args:
        restorer: see systems/base.py: ImageRestorer.
        made: photographs and where they go.
        run: what `describe_run` tells of the restorer.
        overwrite: replace files that exist, whoever made them.
        strip_metadata: leave out EXIF, XMP, texts and resolution.

    Returns:
        0, or 1 if any file was left out or could not be restored.
    """
    run = run | ({"strip_metadata": True} if strip_metadata else {})
    failed = restore_all(restorer, made, run, overwrite, strip_metadata)
    for message in failed:
        print(printable(f"error: {message}"), file=sys.stderr)
    return 1 if failed or made.left_out else 0


def restore_all(
    restorer: Any, made: Plan, run: dict[str, Any], overwrite: bool, strip_metadata: bool
) -> list[str]:
    """Restore what is planned and not finished yet; into a folder with its record.

    One broken photograph, or one that is too large for the memory, does not cost the others.

    Returns:
        A line for each photograph that could not be restored.
    """
    seed, output = run["seed"], made.output
    record = None if made.to_file else FolderRecord(output, run)
    if record is not None:
        finished = {job for job in made.jobs if record.is_finished(*job)}
        if finished:
            made.notes.append(f"{len(finished)} photograph(s) are finished already: skipped")
        made.jobs = [job for job in made.jobs if job not in finished]
        if made.jobs:
            ours = {target for _, target in made.jobs if record.is_ours(target)}
            require_free(made, ours, overwrite)
    made.report()
    failed: list[str] = []
    try:
        with tqdm(made.jobs, desc="photographs", unit="photo", disable=len(made.jobs) < 2) as bar:
            for source, target in bar:
                name = Path(source.name) if made.to_file else target.relative_to(output)
                caption = name.with_suffix("").as_posix()
                try:
                    data, inter = restore_file(
                        restorer, source, target, seed, caption, strip_metadata
                    )
                    if record is None:
                        write_bytes(target, data)
                    else:
                        record.write(source, target, data, inter)
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    if os.environ.get("LIT_MIMDIT_TRACEBACK"):
                        traceback.print_exc()
                    failed.append(_why(error, source, restorer))
    finally:  # an interrupted call leaves a record, too
        if record is not None and output.is_dir():
            try:
                record.close()
            except FileError as error:
                failed.append(str(error))
    return failed


def _why(error: Exception, source: Path, restorer: Any) -> str:
    """One line on what stood in the way of a photograph."""
    text = " ".join(str(error).split()) or type(error).__name__
    memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text.lower() or "allocate memory" in text.lower())
    )
    if memory:
        torch.cuda.empty_cache()
        return f"{source}: not enough memory; try {_smaller(restorer)}"
    if isinstance(error, FileError):
        return text
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{source}: {kind}{text}"


def _smaller(restorer: Any) -> str:
    """Options that need less memory than those of a restorer."""
    config, multiple = getattr(restorer, "config", None), getattr(restorer, "multiple", 1)
    tile, overlap = getattr(config, "tile", None), getattr(config, "overlap", 0)
    if tile is None:
        return "--device cpu, or a smaller photograph"
    smaller = tile // 2 // multiple * multiple
    if smaller < multiple:
        return "--tile_batch 1"
    advice = f"--tile {smaller}"
    if overlap >= smaller:
        advice += f" --overlap {smaller // 4 // multiple * multiple}"
    return f"{advice}, a smaller --tile_batch, or a smaller photograph"


def restore_file(
    restorer: Any,
    source: Path,
    target: Path,
    seed: int,
    id: str,
    strip_metadata: bool = False,
) -> tuple[bytes, list[list[float]]]:
    """Restore one file, whose caption is found by `id`, and make the folder of `target`.

    Whether the format of `target` can hold it is known before the first step, and what it cannot
    hold is said then.

    Returns:
        The bytes of the restored file, which is not written yet, and the Inter-MoE weights by
        block. Raises `ImageError`.
    """
    photo = read_photo(source)
    photo = prepared(photo, source, target, strip_metadata)
    total = restorer.evaluations(*photo.rgb.shape[-2:])
    with tqdm(total=total, desc=printable(source.name), unit="tile step", leave=False) as bar:
        restored, (decisions,) = restorer(photo.rgb[None], torch.tensor([seed]), bar.update, [id])
    alpha = photo.alpha
    if alpha is not None and alpha.shape[-2:] != restored.shape[-2:]:  # of a system that enlarges
        alpha = F.interpolate(alpha[None], restored.shape[-2:], mode="bilinear")[0]
    data = encode_photo(target, restored[0], alpha, photo.gray, photo.bits, photo.metadata)
    return data, inter_weights(decisions)


def prepared(photo: Photo, source: Path, target: Path, strip_metadata: bool) -> Photo:
    """The photograph as the format of `target` holds it; what is lost is said on stderr.

    Raises `ImageError` if it cannot be written.
    """
    require_writable(target, *photo.rgb.shape[-2:])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{target.parent}: cannot be made: {error.strerror}") from error
    if not os.access(target.parent, os.W_OK | os.X_OK) or target.is_dir():
        reason = "is a folder" if target.is_dir() else f"no right to write into {target.parent}"
        raise ImageError(f"{target}: cannot be written: {reason}")
    metadata = photo.metadata
    said = [f"{note} is not taken over" for note in metadata.notes]
    if metadata.frames > 1:
        said.append(f"holds {metadata.frames} pictures, and the first is restored")
    if strip_metadata:
        metadata = Metadata(icc=metadata.icc)
    said += losses(target, photo.alpha is not None, photo.bits, metadata)
    for text in said:
        tqdm.write(printable(f"note: {source}: {text}"), file=sys.stderr)
    return held(target, photo._replace(metadata=metadata))
