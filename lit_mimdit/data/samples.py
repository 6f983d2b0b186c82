"""Single pairs of sample data: which crop of which photograph, degraded how, and its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lit_mimdit.data import photographs
from lit_mimdit.data.composition import FOUNDIR_TYPES, compose, degrade
from lit_mimdit.data.degradations import jpeg_quality, to_uint8
from lit_mimdit.data.image_io import list_images, read_rgb
from lit_mimdit.data.photographs import SPLITS, Split


class Sample(NamedTuple):
    """One pair of the tree: a square crop of a photograph and how it is degraded."""

    id: str
    split: Split
    type: str
    severity: str
    photograph: str
    box: tuple[int, int, int, int]  # left, top, right, bottom: pixels of the photograph
    # degrade(crop, FOUNDIR_TYPES[type], severity, numpy.random.default_rng(seed))
    seed: int
    jpeg_quality: int | None

    @property
    def gt(self) -> str:
        return f"{self.split}/{self.type}/GT/{self.id}.png"

    @property
    def lq(self) -> str:
        # FoundIR writes the extension of its 06 and 17 in capitals.
        suffix = (
            "png"
            if self.jpeg_quality is None
            else "JPG"
            if self.type in ("06JPEG", "17Lowlight_JPEG")
            else "jpg"
        )
        return f"{self.split}/{self.type}/LQ/{self.id}.{suffix}"

    @property
    def row(self) -> tuple:
        quality = "" if self.jpeg_quality is None else self.jpeg_quality
        return (*self[:5], *self.box, self.seed, quality, self.gt, self.lq)


class Sources(NamedTuple):
    """Photographs by split, and how to read one.

    Pixels are (H, W, 3) uint8; the depth (H, W) is None where nobody measured it.
    """

    names: dict[Split, list[str]]
    read: Callable[[str], tuple[np.ndarray, np.ndarray | None]]


def sources_of(photos: Path | None) -> Sources:
    """The photographs of installed packages, or those of a folder, all for the test split."""
    if photos is None:
        names = {split: [one.name for one in photographs.of_split(split)] for split in SPLITS}
        return Sources(
            names,
            lru_cache(len(photographs.PHOTOGRAPHS))(
                lambda name: (photographs.load(name), photographs.depth(name))
            ),
        )
    files = {
        path.relative_to(photos).as_posix(): path
        for path in (list_images(photos) if photos.is_dir() else [])
    }
    if not files:
        raise ValueError(f"photos is {photos}: give a folder with photographs")

    def read(name: str) -> tuple[np.ndarray, None]:
        image = read_rgb(files[name])
        return (image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)), None

    return Sources({"train": [], "val": [], "test": list(files)}, lru_cache(32)(read))


def draw_samples(
    split: Split, crops: int, size: int, severities: tuple[str, ...], seed: int, sources: Sources
) -> Iterator[Sample]:
    """Draw the samples of a split, all 20 types.

    Each has its own seed (seed, split, type, index); ids run across the types.
    """
    names = sources.names[split]
    for number, (name, degradations) in enumerate(FOUNDIR_TYPES.items()):
        for index in range(crops):
            sequence = np.random.SeedSequence((seed, SPLITS.index(split), number, index))
            generator = np.random.default_rng(sequence)
            photograph = names[generator.integers(len(names))]
            height, width = sources.read(photograph)[0].shape[:2]
            # Side log-uniform between the output's size and the whole photograph: near and far
            # views, never enlarged.
            side = round(size * (min(height, width) / size) ** generator.random())
            left, top = (
                int(generator.integers(width - side + 1)),
                int(generator.integers(height - side + 1)),
            )
            severity = severities[(number + index) % len(severities)]
            degradation_seed = int(generator.integers(2**63))
            last = compose(degradations, severity, np.random.default_rng(degradation_seed))[-1]
            yield Sample(
                id=f"{number * crops + index + 1:04d}",
                split=split,
                type=name,
                severity=severity,
                photograph=photograph,
                box=(left, top, left + side, top + side),
                seed=degradation_seed,
                jpeg_quality=(
                    jpeg_quality(last.severity, last.generator) if last.name == "jpeg" else None
                ),
            )


def write_pair(folder: Path, sample: Sample, size: int, sources: Sources) -> None:
    """Write GT and LQ of one sample under ``folder``; the LQ image of a JPEG type is the JPEG file
    itself, not a decoded copy.
    """
    image, depth = sources.read(sample.photograph)
    gt = Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS, box=sample.box)
    if depth is not None:
        depth = np.asarray(
            Image.fromarray(depth).resize((size, size), Image.Resampling.BOX, box=sample.box)
        )
    names = [name for name in FOUNDIR_TYPES[sample.type] if name != "jpeg"]
    lq = degrade(
        np.asarray(gt, np.float32) / 255,
        names,
        sample.severity,
        np.random.default_rng(sample.seed),
        depth,
    )
    for path in (folder / sample.gt, folder / sample.lq):
        path.parent.mkdir(parents=True, exist_ok=True)
    gt.save(folder / sample.gt, "PNG")
    lq = Image.fromarray(to_uint8(lq))
    if sample.jpeg_quality is None:
        lq.save(folder / sample.lq, "PNG")
    else:
        lq.save(folder / sample.lq, "JPEG", quality=sample.jpeg_quality)
