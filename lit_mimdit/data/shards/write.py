"""`python -m lit_mimdit data shard`: a paired data set as tar files that are read in pieces
(WebDataset's layout).

Each shard is written by one process under a hidden name and renamed when it is whole; its index
follows, and the manifest comes last. So a run that was killed, at whatever moment, goes on with the
shards that are missing.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lit_mimdit.data.check import LayoutName
from lit_mimdit.data.image_io import ImageError, image_info, read_rgb
from lit_mimdit.data.layouts import Pair, read_layout, require_complete
from lit_mimdit.data.shards.codec import Codec, check_codec, encode
from lit_mimdit.data.shards.jobs import finish, run_jobs, start
from lit_mimdit.data.shards.writer import Member, ShardWriter
from lit_mimdit.data.sources import require_same_size
from lit_mimdit.data.tiles import Region, boxes


@dataclass(frozen=True)
class Settings:
    """The settings that decide how shards look."""

    tile: int | None
    overlap: int
    codec: Codec
    quality: int | None
    shard_pairs: int
    seed: int


def shard(
    source: Path,
    destination: Path,
    *,
    layout: LayoutName = "auto",
    meta: Path | None = None,
    split: str | None = None,
    frames: Path | None = None,
    tile: int | None = None,
    overlap: int = 0,
    codec: Codec = "webp",
    quality: int | None = None,
    shard_pairs: int = 64,
    workers: int = 4,
    max_broken: float = 0.01,
    seed: int = 0,
) -> None:
    """Write a paired data set as shards: tar files with a manifest, for training from a network
    disk or S3.

    The pairs are mixed first, so that every shard holds all degradations. The same command goes on
    where it was stopped or killed. Pairs that cannot be read, or whose images differ in size, are
    left out and listed in quarantine.csv. To train from the shards, name their folder as
    data.init_args.train.

    Args:
        source: folder of the data set
        destination: folder for the shards. It is made if it does not exist
        layout: how the folders of the data set are named; `auto` recognises it
        meta: for `foundir` only: file of `GT-path, LQ-path` lines relative to source
        split: for `realrain1k` and `uhdll` only: `train`, `val` or `test`; `test` if not given
        frames: for `4krd` only: file that names the frames to use, a line such as `VID_001/00001`
            each
        tile: cut images into tiles of this side, pixels. A training step then decodes one tile of a
            pair, not whole images. Give the training crop or more; equal is best. `null` keeps
            images whole
        overlap: pixels that neighbouring tiles share at least
        codec: `png` is lossless, and so is `webp` without a quality. `jpeg` needs a quality. `copy`
            keeps the bytes of the files as they are
        quality: 1 to 100, for lossy `webp` and for `jpeg`; `null` for lossless
        shard_pairs: pairs in a shard; 100 MB to 1 GB for each shard suit network disks and S3
        workers: processes that decode and encode
        max_broken: stop if more than this share of the pairs cannot be used
        seed: seed of the order in which pairs are mixed
    """
    if tile is not None and tile < 16:
        raise ValueError(f"tile is {tile}: give 16 or more pixels, or null for whole images")
    boxes(1, 1, tile, overlap)  # refuses an overlap that does not fit
    if tile is None and overlap:
        raise ValueError(f"overlap is {overlap}, but whole images have none: set tile as well")
    for name, value in {"shard_pairs": shard_pairs, "workers": workers}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    check_codec(codec, quality, tile)
    pairs = require_complete(read_layout(layout, source, split=split, meta=meta, frames=frames))
    pairs = [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))]
    settings = Settings(tile, overlap, codec, quality, shard_pairs, seed)
    files = [
        (pair.id, os.path.relpath(pair.lq, source), os.path.relpath(pair.gt, source))
        for pair in pairs
    ]
    start(destination, asdict(settings), files)
    names = sorted({pair.degradation for pair in pairs})
    jobs = {
        number: (pairs[begin : begin + shard_pairs], settings)
        for number, begin in enumerate(range(0, len(pairs), shard_pairs))
    }
    failed = run_jobs(destination, write_pairs, jobs, len(pairs), workers, max_broken)
    finish(destination, "images", asdict(settings), names, len(jobs), failed)


def write_pairs(
    folder: Path, number: int, job: tuple[list[Pair], Settings], count: Callable[[], None]
) -> None:
    """Shard `number`, out of image files."""
    pairs, settings = job
    with ShardWriter(folder, number) as writer:
        for pair in pairs:
            try:
                writer.add(pair, *_cut(pair, settings))
            except ImageError as error:
                writer.failed.append((pair.id, str(error)))
            count()


def _cut(pair: Pair, settings: Settings) -> tuple[int, int, list[tuple[Region, list[Member]]]]:
    """Height, width and encoded tiles of a pair."""
    lq, gt = read_rgb(pair.lq), read_rgb(pair.gt)
    require_same_size(lq, gt, pair)
    height, width = lq.shape[:2]
    if settings.codec == "copy":
        members = [
            (f"{side}.{image_info(path).format.lower()}", path.read_bytes())
            for side, path in (("lq", pair.lq), ("gt", pair.gt))
        ]
        return height, width, [(Region(0, 0, height, width), members)]
    tiles = []
    for box in boxes(height, width, settings.tile, settings.overlap):
        members = []
        for side, pixels in (("lq", lq), ("gt", gt)):
            part = np.ascontiguousarray(
                pixels[box.top : box.top + box.height, box.left : box.left + box.width]
            )
            extension, data = encode(part, settings.codec, settings.quality)
            members.append((f"{side}.{extension}", data))
        tiles.append((box, members))
    return height, width, tiles
