"""`python -m lit_mimdit restore`: photographs of any size, in files or folders."""

import sys
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from lit_mimdit.data.image_io import (
    IMAGE_EXTENSIONS,
    ImageError,
    list_images,
    output_format,
    read_photo,
    write_photo,
)
from lit_mimdit.inference.corrector import choose_fidelity
from lit_mimdit.inference.device import choose_device
from lit_mimdit.inference.run_record import describe_run, inter_weights, write_record
from lit_mimdit.inference.system_file import PACKAGE, build_system, load_system, system_path


def plan(inputs: list[Path], output: Path) -> list[tuple[Path, Path]]:
    """(source, target) of every photograph. One file may go to a file; anything else goes into the
    folder `output`.

    ValueError for a missing input, an input without images, a target that cannot be written, or two
    inputs of one name.
    """
    to_file = (
        len(inputs) == 1
        and inputs[0].is_file()
        and output.suffix.lower() in IMAGE_EXTENSIONS
        and not output.is_dir()
    )
    if to_file:
        output_format(output)
        if not output.parent.is_dir():
            raise ValueError(f"{output}: there is no folder {output.parent}")
        return _spare_inputs([(inputs[0], output)])
    jobs: dict[Path, Path] = {}
    for source in inputs:
        if not source.exists():
            raise ValueError(f"{source}: no such file or folder")
        found = [source] if source.is_file() else list_images(source)
        if not found:
            raise ValueError(f"{source}: no images in this folder")
        for path in found:
            relative = Path(path.name) if source.is_file() else path.relative_to(source)
            target = output / relative.with_suffix(".png")
            if target in jobs:
                raise ValueError(
                    f"{jobs[target]} and {path} would both be written to {target}: restore them"
                    " separately"
                )
            jobs[target] = path
    if output.is_file():
        raise ValueError(f"{output}: is a file; several photographs need a folder")
    return _spare_inputs([(path, target) for target, path in jobs.items()])


def _spare_inputs(jobs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    sources = {source.resolve() for source, _ in jobs}
    for _, target in jobs:
        if target.resolve() in sources:
            raise ValueError(
                f"{target}: the restored photograph would replace the original; give another output"
            )
    return jobs


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
    return system.to(place).restorer()


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
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
) -> int:
    """Restore photographs: any size and aspect ratio, grayscale, RGBA, 16-bit, EXIF-rotated; the
    output has the input's size.

    Without --checkpoint the branch and backbone that come with the package are used.

    Args:
        inputs: Photographs, or folders of them.
        output: File to write (one photograph), or folder (PNG files of the same names).
        checkpoint: Exported system (.safetensors) or training checkpoint (.ckpt); package is the one
            that comes with the package.
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
        seed: Of the noise; the same seed gives the same picture.
        device: auto, cpu, cuda, cuda:1, mps.
        trust: Also build a class that lies outside lit_mimdit.systems; its code then runs.

    Returns:
        0, or 1 if any photograph could not be restored.
    """
    jobs = plan(inputs, output)
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
        **options,
    )
    run = describe_run(restorer, system_path(checkpoint), seed)
    routing: dict[str, list[list[float]]] = {}
    failed: list[str] = []
    with tqdm(jobs, desc="photographs", unit="photo", disable=len(jobs) == 1) as photographs:
        for source, target in photographs:
            try:
                name = target.relative_to(output) if target != output else Path(source.name)
                inter = restore_file(
                    restorer, source, target, seed, name.with_suffix("").as_posix()
                )
            except (
                ImageError
            ) as error:  # one broken file does not cost the others; it is named below
                failed.append(str(error))
                continue
            if target != output:
                routing[target.relative_to(output).as_posix()] = inter
    if routing:
        write_record(output, run, routing)
    for message in failed:
        print(f"error: {message}", file=sys.stderr)
    return 1 if failed else 0


def restore_file(
    restorer: Any, source: Path, target: Path, seed: int, id: str
) -> list[list[float]]:
    """Restore one file, whose caption is found by `id`; the target appears whole or not at all.

    Returns its Inter-MoE weights by block. Raises ImageError.
    """
    photo = read_photo(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    total = restorer.evaluations(*photo.rgb.shape[-2:])
    with tqdm(total=total, desc=source.name, unit="tile step", leave=False) as bar:
        restored, (decisions,) = restorer(photo.rgb[None], torch.tensor([seed]), bar.update, [id])
    write_photo(target, restored[0], photo.alpha, photo.gray, photo.bits)
    return inter_weights(decisions)
