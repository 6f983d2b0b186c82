"""Takes the cells of crops under haze and darkness, for the training of a SceneLight.

    python experiments/nano/wide_cells.py data/photos -o data/wide_cells

PHOTOS has the folders train and val. OUT has the files that lit_mimdit/data/wide_cells.py reads.
Some crops are blurred or noisy, too, and stay so in the reference. experiments/nano/wide_light.yaml
trains on the cells.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lit_mimdit.data.photos import read_levels
from lit_mimdit.data.wide_cells import CHANNELS, store
from lit_mimdit.data.wide_photos import WideBatches
from lit_mimdit.models.scene_light import CELL, PLANES, cells

LONGEST = 1024  # pixels of a photograph's longer side
BATCH = 16
SHARES = {"haze": 0.33, "low_light": 0.37, "blur": 0.25, "noise": 0.05}
KEPT = ("blur", "noise")


def taken(source: WideBatches, count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cells of `count` crops, degraded and clean."""
    lq, gt = (np.empty((count, n, side, side), np.float16) for n in (PLANES, CHANNELS))
    for index in tqdm(range(len(source)), desc="batches", unit="batch"):
        rows = slice(index * BATCH, min((index + 1) * BATCH, count))
        degraded, clean = (cells(images.float() / 255).numpy() for images in source.pixels(index))
        fill = rows.stop - rows.start
        lq[rows], gt[rows] = degraded[:fill], clean[:fill, :CHANNELS]
    return lq, gt


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder with train and val")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the cells")
    parser.add_argument("--crop", type=int, nargs="+", default=[128, 256], help="sides, pixels")
    parser.add_argument(
        "--count", type=int, nargs="+", default=[150000, 7000], help="crops of each side"
    )
    parser.add_argument("--val_count", type=int, default=1500, help="of each side")
    parser.add_argument("--dim", type=float, default=0.35, help="share of dimmed crops")
    parser.add_argument("--brighten", type=float, default=0.12, help="share of brightened crops")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if len(args.crop) != len(args.count):
        parser.error(f"--crop has {len(args.crop)} sides and --count {len(args.count)} numbers")
    for split, seed in (("val", args.seed + 1), ("train", args.seed)):
        for crop, count in zip(args.crop, args.count, strict=True):
            count = args.val_count if split == "val" else count
            levels = read_levels(str(args.photos / split), LONGEST, crop, f"PHOTOS/{split}")
            source = WideBatches(
                levels,
                crop,
                BATCH,
                -(-count // BATCH),
                seed,
                args.dim,
                shares=SHARES,
                kept=KEPT,
                brighten=args.brighten,
            )
            store(args.output / f"{split}-{crop}.npz", *taken(source, count, crop // CELL))


if __name__ == "__main__":
    main()
