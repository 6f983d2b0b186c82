"""Restores crops under wide degradations by the branch, once, for a network behind it to learn.

    python experiments/nano/wide_bank.py data/photos -o data/wide_bank --batches 1500
    python experiments/nano/wide_bank.py data/photos -o data/wide_bank --batches 1500 --part 1/2

PHOTOS has the folders train and val. To restore a crop takes as long as many steps of the small
network, which then sees it several times, cut and turned in other ways. Crops that are there stay,
so a run that was stopped goes on. Several processes share the work: --part 0/2 and 1/2.

OUT has the files that lit_mimdit/data/wide_bank.py reads, and made_by.json, which says what made
them. Other settings or another branch need another OUT. experiments/nano/wide_behind.yaml trains on
the bank.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lit_mimdit.data.photos import read_levels
from lit_mimdit.data.wide.mixture import KINDS
from lit_mimdit.data.wide_bank import write_batch
from lit_mimdit.data.wide_photos import CLEAN, WideBatches
from lit_mimdit.files import write_bytes
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.system_file import system_path

LONGEST = 1536  # pixels of a photograph's longer side


def part(text: str) -> tuple[int, int]:
    """(I, N) of "I/N", the share I of N."""
    index, count = (int(number) for number in text.split("/"))
    if not 0 <= index < count:
        raise argparse.ArgumentTypeError(f"{text}: the parts of 2 are 0/2 and 1/2")
    return index, count


def keep_record(folder: Path, made_by: dict[str, Any]) -> None:
    """Writes what makes a bank; ValueError if something else has made what is there."""

    def decisive(record: dict[str, Any]) -> list[Any]:
        run = record["restoration"]
        return [record["settings"], run["checkpoint"], run["config_hash"]]

    path = folder / "made_by.json"
    if path.exists():
        if decisive(json.loads(path.read_bytes())) != decisive(made_by):
            raise ValueError(
                f"{folder}: made with other settings or another branch, see {path.name}; give"
                " another folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(made_by, indent=1).encode())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder with train and val")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the bank")
    parser.add_argument("--checkpoint", help="branch; without it the package's")
    parser.add_argument("--batches", type=int, default=1500, help="of training crops")
    parser.add_argument("--val_batches", type=int, default=2, help="of each kind")
    parser.add_argument("--batch", type=int, default=16, help="crops in a batch")
    parser.add_argument("--crop", type=int, default=96, help="side of a crop, pixels")
    parser.add_argument("--dim", type=float, default=0.1, help="share of dimmed crops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=part, default=(0, 1), help="I/N: the share I of N")
    args = parser.parse_args(arguments)
    restorer = load_restorer(args.checkpoint, dtype="auto").corrected_by(None)
    share, shares = args.part
    settings = {name: getattr(args, name) for name in ("batch", "crop", "dim", "seed")}
    own = describe_run(restorer, system_path(args.checkpoint), "number of the crop")
    keep_record(args.output, {"settings": settings, "restoration": own})

    def batches(split: str, count: int, seed: int, kinds: list[str] | None) -> WideBatches:
        folder = args.photos / split
        levels = read_levels(str(folder), LONGEST, args.crop, f"PHOTOS/{split}")
        dim = 0.0 if kinds else args.dim
        return WideBatches(levels, args.crop, args.batch, count, seed, dim, kinds)

    kinds = [*KINDS, CLEAN]
    val = batches("val", args.val_batches * len(kinds), args.seed + 1, kinds)
    named = [
        (f"val/{kind}-{number}", val, number * len(kinds) + index)
        for number in range(args.val_batches)
        for index, kind in enumerate(kinds)
    ]
    train = batches("train", args.batches, args.seed, None)
    named += [(f"train/{i:06d}", train, i) for i in range(len(train))]
    for name, source, index in tqdm(named[share::shares], desc="batches", unit="batch"):
        path = args.output / f"{name}.npy"
        if path.exists():
            continue
        lq, gt = source.pixels(index)
        seeds = torch.arange(len(lq)) + index * args.batch
        restored, _ = restorer(lq.float() / 255, seeds)
        write_batch(path, lq, gt, restored)


if __name__ == "__main__":
    main()
