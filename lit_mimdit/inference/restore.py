"""`python -m lit_mimdit restore`: photographs of any size, in files or folders."""

import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from lit_mimdit.data.image_file import allowed_megapixels
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
from lit_mimdit.inference.corrector import choose_fidelity
from lit_mimdit.inference.device import choose_device
from lit_mimdit.inference.folder_record import FolderRecord
from lit_mimdit.inference.plan import Plan, plan, require_free
from lit_mimdit.inference.run_record import describe_run, inter_weights
from lit_mimdit.inference.system_file import PACKAGE, build_system, load_system, system_path
from lit_mimdit.models.what_if import NO_ROUTERS, Choice, Weight


def load_restorer(
    checkpoint: str | Path | None = None,
    backbone: str | None = None,
    device: str | torch.device = "auto",
    *,
    trust: bool = False,
    prompt: str | None = None,
    captions: str | Path | None = None,
    dtype: str | None = None,
    fidelity: str | None = None,
    fidelity_weight: float = 1.0,
    inter: str | Mapping[str, Weight] | None = None,
    intra: str | Mapping[str, Choice] | None = None,
    **sampling: object,
) -> Any:
    """The restorer of a trained system: called with images and seeds, it returns restored images.

    Values that are None are those that the system was trained or exported with.

    Args:
        checkpoint: exported file or training checkpoint; "package" or None is the one that comes
            with the package.
        backbone: folder or hub id of the backbone, if it is not where it was in training.
        device: name of a device, "auto" for a GPU if there is one, or a torch.device.
        trust: also build classes outside lit_mimdit.systems.
        prompt: what the backbone is told about the images.
        captions: file with a caption for each image.
        dtype: precision of the frozen weights, "float32" or "bfloat16".
        fidelity: network that corrects the results: a file, "package", or None for none.
        fidelity_weight: of its correction, from 0 to 1.
        inter: weights of expert groups in the place of the Inter routers': see models/what_if.py.
        intra: sub-experts by group in the place of the Intra routers'.
        sampling: values of SamplingConfig, or of a system's own constructor.

    Returns:
        see systems/base.py: ImageRestorer.

    Raises:
        ValueError: the file cannot be read or does not fit, or the system has no such value.
    """
    path = system_path(checkpoint)
    file = load_system(path)
    given: dict[str, Any] = {"backbone": backbone, "backbone_dtype": dtype, "fidelity": fidelity}
    if fidelity is not None:
        given["fidelity_weight"] = fidelity_weight
    told = {"text": prompt, "captions": None if captions is None else str(captions)}
    told = {name: value for name, value in told.items() if value is not None}
    if told:
        given["prompt"] = told
    values = {name: value for name, value in sampling.items() if value is not None}
    if file.sampling is None:
        given |= values
    elif values:
        given["sampling"] = values
    given = {name: value for name, value in given.items() if value is not None}
    system = build_system(file, f"checkpoint {path}", trust, **given)
    place = device if isinstance(device, torch.device) else choose_device(device)
    restorer = system.to(place).restorer()
    if inter is None and intra is None:
        return restorer
    if not hasattr(restorer, "forced"):
        raise ValueError(NO_ROUTERS)
    return restorer.forced(inter, intra)


def restore(
    inputs: list[Path],
    *,
    output: Path,
    checkpoint: Path | None = None,
    backbone: str | None = None,
    steps: int | None = None,
    solver: Literal["euler", "heun"] | None = None,
    start: Literal["noise", "lq"] | None = None,
    strength: float | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    tile_batch: int | None = None,
    overview: int | None = None,
    overview_samples: int | None = None,
    prompt: str | None = None,
    captions: Path | None = None,
    guidance: float | None = None,
    colour: Literal["none", "adain", "wavelet"] | None = None,
    condition_gb: float | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    fidelity: str = "auto",
    fidelity_weight: float = 1.0,
    inter: str | None = None,
    intra: str | None = None,
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
    overwrite: bool = False,
    strip_metadata: bool = False,
    max_megapixels: float | None = None,
) -> int:
    """Restore photographs: any aspect ratio, grayscale, RGBA, 16-bit, EXIF-rotated; the output has
    the input's size.

    Without --checkpoint the branch and backbone that come with the package are used. Content
    decides what is a photograph, not the name. Whatever is left out of a folder is named on stderr
    with its reason. Of animations and files of several pages the first is restored. Colours of an
    embedded profile are converted: the output is sRGB, with an sRGB profile where the input had
    one. A second call with the same settings skips finished photographs; an interrupted one goes
    on.

    Args:
        inputs: Photographs, or folders of them.
        output: File to write (one photograph: .png, .jpg, .tif or .webp), or folder (PNG files of
            the same names, and restoration.json, which says how they were made).
        checkpoint: Exported system (.safetensors) or training checkpoint (.ckpt); package is the
            one that comes with the package.
        backbone: Folder or hub id of the backbone, if it is not where it was in training.
        steps: Solver steps; more is slower and more detailed.
        solver: euler or heun (two network evaluations a step).
        start: noise, or lq to start from the degraded image at time --strength.
        strength: Time in (0, 1] at which start lq begins.
        tile: Side of the tiles that large photographs are cut into, pixels.
        overlap: Pixels that neighbouring tiles share.
        tile_batch: Tiles computed at once.
        overview: Longer side, in pixels, of a small copy of a large photograph that tells its tiles
            light and colours; 0 does without.
        overview_samples: How often that copy (or a photograph no larger) is restored, from other
            noise; light and colours are their mean's.
        prompt: What the backbone is told about the photographs; that of training unless given.
            Needs a backbone with text encoders.
        captions: A caption a photograph: .csv with the columns id and caption, or .jsonl; the id is
            the path below the input folder without its ending.
        guidance: More than 1 follows the prompt further than the network would by itself, at twice
            the cost; 1 does without.
        colour: adain or wavelet bring the colours back to the input's; not for photographs that are
            dark or hazy.
        condition_gb: GiB that what is kept of a large photograph's tiles may take; less is slower,
            the picture is the same.
        dtype: Precision of the backbone; that of training unless given.
        fidelity: Network that corrects the result by the pixels of the input: a file
            (experiments/nano/fidelity.yaml), package (behind the branch that comes with it), none
            (as in the paper), or auto: package without --checkpoint, else none.
        fidelity_weight: Of its correction, from 0 to 1.
        inter: Weights of expert groups in the place of the Inter routers', such as
            spatial=0,channel=1. Groups that are not named keep the router's weight; others=0
            switches them off, and spatial@2=0 speaks of block 2 alone.
        intra: Sub-experts in the place of the Intra routers', such as swin=0+2. They keep the
            router's gates; swin=0:0.7 sets one.
        seed: Of the noise; the same seed gives the same picture.
        device: auto, cpu, cuda, cuda:1, mps.
        trust: Also build a class that lies outside lit_mimdit.systems; its code then runs.
        overwrite: Replace files that exist, even if restore did not make them.
        strip_metadata: Leave out EXIF (date, camera, place), XMP, texts and resolution. Else they
            are copied, with orientation 1 and without thumbnails.
        max_megapixels: Photographs of more are refused; 250 unless given. Whole photographs are
            held as about a dozen planes of floats: 0.15 GB a megapixel beside the model.

    Returns:
        0, or 1 if any file was left out or could not be restored.
    """
    with nullcontext() if max_megapixels is None else allowed_megapixels(max_megapixels):
        made = plan(inputs, output)
        if made.to_file:
            require_free(made, set(), overwrite)
        options = {
            "steps": steps,
            "solver": solver,
            "start": start,
            "strength": strength,
            "tile": tile,
            "overlap": overlap,
            "tile_batch": tile_batch,
            "overview": overview,
            "overview_samples": overview_samples,
            "guidance": guidance,
            "colour": colour,
            "condition_gb": condition_gb,
        }
        corrector = {
            "fidelity": choose_fidelity(
                fidelity, own_branch=checkpoint is None or str(checkpoint) == PACKAGE
            ),
            "fidelity_weight": fidelity_weight,
        }
        restorer = load_restorer(
            checkpoint,
            backbone,
            device,
            trust=trust,
            prompt=prompt,
            captions=captions,
            dtype=dtype,
            **corrector,
            inter=inter,
            intra=intra,
            **options,
        )
        run = describe_run(restorer, system_path(checkpoint), seed)
        return carry_out(restorer, made, run, overwrite, strip_metadata)


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
        print(f"error: {message}", file=sys.stderr)
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
        with tqdm(made.jobs, desc="photographs", unit="photo", disable=len(made.jobs) == 1) as bar:
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
    return f"{advice}, or a smaller --tile_batch"


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
    with tqdm(total=total, desc=source.name, unit="tile step", leave=False) as bar:
        restored, (decisions,) = restorer(photo.rgb[None], torch.tensor([seed]), bar.update, [id])
    data = encode_photo(target, restored[0], photo.alpha, photo.gray, photo.bits, photo.metadata)
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
        tqdm.write(f"note: {source}: {text}", file=sys.stderr)
    return held(target, photo._replace(metadata=metadata))
