"""Trains variants of the fidelity network side by side on one stream of wide degradations, on a GPU
that is lent for minutes, and measures them.

    python experiments/nano/wide_on_gpu.py data/wide_pack -o OUT --seconds 540
    python experiments/nano/wide_on_gpu.py data/wide_pack -o OUT --seconds 120     # goes on
    python experiments/nano/wide_on_gpu.py data/wide_pack -o OUT --seconds 20 --tiny --device cpu

wide_pack.py makes the pack. A crop takes a core some milliseconds, so every variant learns from the
same batches. Training ends --reserve seconds before the end, for the table. The rate follows a
cosine over the time. A run that finds --state goes on from it, at a third of the rate. On a new
machine, --init takes the networks of an earlier OUT.

OUT has NAME.safetensors of each variant, its average; scores.csv; training.csv. The table, which is
printed, has the mean PSNR restored - degraded of each set, and of clean images what they come back
at; images that come back more than 0.5 dB worse are counted. wide_variants.py says which
variants there are, and why.
"""

import argparse
import csv
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from wide_variants import TINY, VARIANTS, Training

from lit_mimdit.data.image_io import list_images, read_rgb
from lit_mimdit.data.pairs import to_floats, to_planes
from lit_mimdit.data.photos import read_levels
from lit_mimdit.data.wide.mixture import KINDS
from lit_mimdit.data.wide_photos import CLEAN, WideBatches
from lit_mimdit.evaluation.pixel import psnr
from lit_mimdit.inference.fidelity_file import save_fidelity

SAVE = 120.0  # seconds between states
WARMUP = 300  # steps
CAP = 60.0  # dB
ENDLESS = 10**9  # batches
WORSE = 0.5  # dB


class Bytes(Dataset):
    """Batches as bytes, a quarter of what workers would have to hand over.

    They are arrays and go through pipes: tensors go through shared memory, of which a machine may
    have little.
    """

    def __init__(self, batches: WideBatches) -> None:
        self.batches = batches

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        return tuple(images.numpy() for images in self.batches.pixels(index))


def as_they_are(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """What a loader does to its items instead of making tensors of them."""
    return arrays


def tensors(arrays: tuple[np.ndarray, ...]) -> tuple[Tensor, ...]:
    return tuple(map(torch.from_numpy, arrays))


def stream(args: argparse.Namespace, first: int, cuda: bool) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches from the batch `first` on, the same with any number of workers."""
    levels = read_levels(str(args.pack / "train"), 1024, args.crop, "PACK/train")
    batches = WideBatches(levels, args.crop, args.batch, ENDLESS, args.seed, args.dim)
    loader = DataLoader(
        Bytes(batches),
        None,
        sampler=range(first, ENDLESS),
        num_workers=args.workers,
        collate_fn=as_they_are,
        pin_memory=cuda,  # a thread reads the pipes
    )
    return map(tensors, loader)


def save(args: argparse.Namespace, batches: int, trainings: list[Training]) -> None:
    """Leaves all states, whole or not at all, and the networks' averages."""
    args.state.parent.mkdir(parents=True, exist_ok=True)
    states = {training.variant.name: training.state() for training in trainings}
    new = args.state.with_suffix(".new")
    torch.save({"batches": batches, "variants": states}, new)
    os.replace(new, args.state)
    for training in trainings:
        save_fidelity(args.output / f"{training.variant.name}.safetensors", training.average)


def train(
    args: argparse.Namespace, trainings: list[Training], first: int, peak: float, end: float
) -> int:
    """Trains all until `end`, and returns how many batches have been seen in all."""
    device, seen = trainings[0].device, first
    batches = stream(args, first, device.type == "cuda")
    start = told = saved = time.monotonic()
    waited = 0.0
    with open(args.output / "training.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seconds", "crops", *(one.variant.name for one in trainings)])
        while (now := time.monotonic()) < end and (not args.steps or seen < first + args.steps):
            rate = peak * 0.5 * (1 + math.cos(math.pi * (now - start) / (end - start)))
            rate *= min(1.0, (seen - first + 1) / WARMUP)
            lq, gt = next(batches)
            waited += time.monotonic() - now
            lq, gt = (
                to_floats(
                    (images.pin_memory() if device.type == "cuda" else images).to(
                        device, non_blocking=True
                    )
                ).contiguous(memory_format=torch.channels_last)
                for images in (lq, gt)
            )
            for training in trainings:
                training.step(lq, gt, rate)
            seen += 1
            if now - saved > SAVE:  # a run that is killed has lost little
                saved = now
                save(args, seen, trainings)
            if now - told > args.tell or seen == first + 1:
                told = now
                values = [f"{training.loss.item():.5f}" for training in trainings]  # waits
                writer.writerow([f"{now - start:.1f}", seen * args.batch, *values])
                file.flush()
                speed = (seen - first) * args.batch / (time.monotonic() - start)
                print(
                    f"{now - start:.0f} s, {seen * args.batch} crops, {speed:.0f} a second,"
                    f" {waited / (time.monotonic() - start):.0%} of the time waiting for crops",
                    flush=True,
                )
    return seen


def pairs(folder: Path) -> Iterator[tuple[str, Path, Tensor, Tensor]]:
    """Set, file, lq and gt, (1, 3, H, W) float32, of all sets in the folder of a pack's pairs."""
    for one in sorted(folder.glob("*")):
        for pair in zip(list_images(one / "lq"), list_images(one / "gt"), strict=True):
            yield one.name, pair[0], *(to_floats(to_planes(read_rgb(path)))[None] for path in pair)


def test_sets(args: argparse.Namespace) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Set, lq and gt, (B, 3, H, W) float32, of the pack's pairs and of the validation kinds."""
    for name, _, lq, gt in pairs(args.pack / "pairs"):
        yield name, lq, gt
    levels = read_levels(str(args.pack / "val"), 1024, args.crop, "PACK/val")
    kinds = [*KINDS, CLEAN]
    batches = WideBatches(levels, args.crop, 16, 2 * len(kinds), args.seed + 1, kinds=kinds)
    for index in range(len(batches) if not args.steps else len(kinds)):
        batch = batches[index]
        yield f"val_{batch['kind']}", batch["lq"], batch["gt"]


def measure(
    args: argparse.Namespace, trainings: list[Training], end: float
) -> list[dict[str, Any]]:
    """Returns a row for each variant and image; what `end` cuts off is left out."""
    torch.backends.cudnn.benchmark = False  # each size would be timed
    rows = []
    for name, lq, gt in test_sets(args):
        if time.monotonic() > end:
            print(f"no time was left for {name} and what follows", flush=True)
            break
        lq, gt = (images.to(trainings[0].device) for images in (lq, gt))
        before = psnr(lq, gt).clamp(max=CAP).tolist()
        for training in trainings:
            after = psnr(training.restored(lq), gt).clamp(max=CAP).tolist()
            rows += [
                {"variant": training.variant.name, "set": name, "degraded": b, "restored": a}
                for b, a in zip(before, after, strict=True)
            ]
    return rows


def table(rows: list[dict[str, Any]], variants: list[str]) -> str:
    """Sets down, variants across: gains in dB, "clean" sets as they come back, and how many harm
    counts.
    """
    lines = [
        "| set | degraded | " + " | ".join(variants) + " |",
        "|---" * (2 + len(variants)) + "|",
    ]
    for name in dict.fromkeys(row["set"] for row in rows):
        cells = []
        for variant in variants:
            own = [row for row in rows if (row["set"], row["variant"]) == (name, variant)]
            degraded, restored = (
                sum(row[key] for row in own) / len(own) for key in ("degraded", "restored")
            )
            worse = sum(row["restored"] < row["degraded"] - WORSE for row in own)
            clean = CLEAN in name
            gain = f"{restored:.1f}" if clean else f"{restored - degraded:+.2f}"
            cells.append(gain if clean else f"{gain} ({worse}/{len(own)})")
        lines.append(f"| {name} | {degraded:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    begin = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pack", type=Path, help="folder that wide_pack.py wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=540, help="of the whole command")
    parser.add_argument("--reserve", type=float, default=60, help="seconds of them for the table")
    parser.add_argument("--state", type=Path, default=Path("runs/wide_on_gpu/state.pt"))
    parser.add_argument("--init", type=Path, help="folder of networks to start from")
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=8e-4, help="highest learning rate")
    parser.add_argument("--dim", type=float, default=0.2, help="share of dimmed crops")
    parser.add_argument("--seed", type=int, default=0)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=cores - 1, help="loader processes")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=0, help="at most; 0: time alone ends it")
    parser.add_argument("--tell", type=float, default=20, help="seconds between lines")
    parser.add_argument("--tiny", action="store_true", help="two small networks")
    args = parser.parse_args(arguments)
    end, device = begin + args.seconds, torch.device(args.device)
    torch.backends.cudnn.benchmark = True
    args.output.mkdir(parents=True, exist_ok=True)
    chosen = [
        one for one in (TINY if args.tiny else VARIANTS) if not args.only or one.name in args.only
    ]
    trainings = [Training(variant, device, args.init) for variant in chosen]
    first, peak = 0, args.rate
    if args.state.is_file():
        state = torch.load(args.state, map_location=device, weights_only=True)
        first, peak = state["batches"], args.rate / 3
        for training in trainings:
            training.load(state["variants"][training.variant.name])
        print(f"goes on after {first} batches of {args.state}")
    seen = train(args, trainings, first, peak, end - args.reserve)
    save(args, seen, trainings)
    print(f"trained on {(seen - first) * args.batch} crops; measures", flush=True)
    rows = measure(args, trainings, end - 5)
    with open(args.output / "scores.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["variant", "set", "degraded", "restored"])
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows, [variant.name for variant in chosen]))
    print(f"{time.monotonic() - begin:.0f} s of {args.seconds:.0f}")


if __name__ == "__main__":
    main()
