"""Pairs a second from shards, from a folder of PNGs as restoration code bases read it, and from decoding alone; side by side in one run.

    python benchmarks/data.py --pairs 2048 --workers 2        # about 35 GB of disk
    python benchmarks/data.py --codecs                        # what each codec costs

The pairs are 1920 x 1080: crops of the photographs of installed packages, enlarged, with noise of 2 levels; LQ blurred before the noise.
`--distinct` of them are made, the other files are copies. The shards hold lossless tiles of the crop's side. "decode only" decodes the very
tiles that the shards give, from memory, and hands on nothing. Each epoch measures all three; the medians are printed.
"""

import argparse
import io
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor
from tqdm import tqdm

from lit_mimdit.data import photographs
from lit_mimdit.data.mixing import training_order
from lit_mimdit.data.order import Cluster, EpochSampler, ResumableLoader
from lit_mimdit.data.pairs import PairDataset, collate
from lit_mimdit.data.shards.codec import encode
from lit_mimdit.data.shards.source import ShardSource
from lit_mimdit.data.shards.write import shard

WIDTH, HEIGHT = 1920, 1080


def make_pair(number: int) -> tuple[np.ndarray, np.ndarray]:
    """LQ and GT (1080, 1920, 3) uint8."""
    draw = np.random.default_rng(number)
    photograph = Image.fromarray(photographs.load(photographs.PHOTOGRAPHS[number % 5].name))
    scale = min(photograph.width / WIDTH, photograph.height / HEIGHT) * draw.uniform(0.5, 1)
    left, top = draw.uniform(0, photograph.width - WIDTH * scale), draw.uniform(0, photograph.height - HEIGHT * scale)
    clean = photograph.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=(left, top, left + WIDTH * scale, top + HEIGHT * scale))
    images = clean.filter(ImageFilter.GaussianBlur(2)), clean
    lq, gt = ((np.float32(image) + draw.normal(0, 2, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8) for image in images)
    return lq, gt


def make_folder(root: Path, pairs: int, distinct: int) -> None:
    for side in ("GT", "LQ"):
        (root / "01Blur" / side).mkdir(parents=True)
    for number in tqdm(range(pairs), desc="making pairs", unit="pair"):
        paths = [root / "01Blur" / side / f"{number:06d}.png" for side in ("LQ", "GT")]
        if number >= distinct:
            for path in paths:
                shutil.copy(path.with_name(f"{number % distinct:06d}.png"), path)
            continue
        for path, pixels in zip(paths, make_pair(number)):
            Image.fromarray(pixels).save(path, compress_level=1)


class PlainFolder(Dataset):
    """What restoration code bases do: PIL decodes both images whole, and a crop of them is kept."""

    def __init__(self, root: Path, crop: int) -> None:
        self.lq, self.gt = (sorted((root / "01Blur" / side).iterdir()) for side in ("LQ", "GT"))
        self.crop = crop

    def __len__(self) -> int:
        return len(self.lq)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        lq, gt = (np.array(Image.open(files[index]).convert("RGB")) for files in (self.lq, self.gt))
        top, left = (random.randint(0, side - self.crop) for side in lq.shape[:2])
        cut = [image[top : top + self.crop, left : left + self.crop] for image in (lq, gt)]
        if random.random() < 0.5:
            cut = [image[:, ::-1] for image in cut]
        turns = random.randrange(4)
        return tuple(to_tensor(np.ascontiguousarray(np.rot90(image, turns))) for image in cut)


class DecodeOnly(Dataset):
    """The stored tiles, in memory already, decoded by PIL and dropped."""

    def __init__(self, source: ShardSource, count: int, samples: int) -> None:
        held, self.samples = source._index(0), samples
        self.tiles = [source._members(0, held, tile, [0, 1]) for tile in range(min(count, len(held.boxes)))]

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> int:
        for data in self.tiles[index % len(self.tiles)]:
            with Image.open(io.BytesIO(data)) as image:
                np.asarray(image.convert("RGB"))
        return 0


def memory_of_tree() -> float:
    """Proportional set size of this process and its children, MiB (Linux)."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = 0
    for pid in ("self", *children):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total / 1024


def rate(batches: Iterator[Any], batch_size: int, warm: int, at_end: Callable[[], float]) -> tuple[float, float]:
    """Pairs a second behind the first `warm` batches, and what `at_end` says while the workers still run."""
    count, begin, said = 0, 0.0, 0.0
    for number, _ in enumerate(batches):
        if number == warm - 1:
            begin = time.perf_counter()
        count, end = number + 1, time.perf_counter()
        if count % 10 == 0:
            said = max(said, at_end())
            begin += time.perf_counter() - end  # the looking does not count
    return (count - warm) * batch_size / (end - begin), said


def compare(args: argparse.Namespace, folder: Path) -> None:
    make_folder(folder / "png", args.pairs, min(args.distinct, args.pairs))
    begin = time.perf_counter()
    shard(folder / "png", folder / "shards", tile=args.crop, workers=args.workers)
    print(f"sharding: {args.pairs / (time.perf_counter() - begin):.1f} pairs/s, {args.workers} workers")
    source = ShardSource(str(folder / "shards"))
    order = training_order(source.table(), "natural", None, 0)
    sampler = EpochSampler(len(source), args.batch, 0, True, True, Cluster(), order)
    loader_of_shards = ResumableLoader(
        PairDataset(source, args.crop, True, "dihedral", 0, replace=True), sampler, num_workers=args.workers, collate_fn=collate
    )
    plain, decode = PlainFolder(folder / "png", args.crop), DecodeOnly(source, 64, args.pairs)
    options = {"batch_size": args.batch, "num_workers": args.workers, "shuffle": True, "drop_last": True}
    some = torch.utils.data.Subset(plain, range(min(args.folder_pairs or args.pairs, args.pairs)))
    rates: dict[str, list[float]] = {"folder": [], "shards": [], "decode only": []}
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for name, loader in (
            ("folder", DataLoader(some, **options)),
            ("shards", loader_of_shards),
            ("decode only", DataLoader(decode, **options)),
        ):
            speed, peak = rate(iter(loader), args.batch, args.workers, memory_of_tree)
            rates[name].append(speed)
            print(f"epoch {epoch}  {name:12} {speed:7.1f} pairs/s  {peak:7.0f} MiB", flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    files, stored = (sum(file.stat().st_size for file in (folder / part).rglob("*.*")) for part in ("png", "shards"))
    print(f"{args.pairs} pairs, {args.workers} workers, batch {args.batch}: PNG {files / 1e9:.2f} GB, shards {stored / 1e9:.2f} GB")
    for name, value in medians.items():
        print(f"{name:12} {value:7.1f} pairs/s")
    ours, limit = medians["shards"], medians["decode only"]
    print(f"shards / folder {ours / medians['folder']:.1f}, shards / decode only {ours / limit:.2f}")


def median_ms(function: Callable[[Any], Any], items: list[Any], runs: int = 5) -> float:
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        for item in items:
            function(item)
        times.append(1000 * (time.perf_counter() - begin) / len(items))
    return statistics.median(times)


def codecs() -> None:
    tiles = [make_pair(number)[1][y : y + 512, x : x + 512].copy() for number in range(4) for y, x in ((0, 0), (300, 800))]
    print("codec          write ms  read ms  bytes a pixel")
    for codec, quality in (("png", None), ("webp", None), ("webp", 90), ("jpeg", 95)):
        stored = [encode(tile, codec, quality)[1] for tile in tiles]
        write = median_ms(lambda tile, c=codec, q=quality: encode(tile, c, q), tiles)
        read = median_ms(lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), stored)
        name = f"{codec} {quality or 'lossless'}"
        print(f"{name:14} {write:8.1f} {read:8.1f} {sum(map(len, stored)) / len(stored) / 512**2:10.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--distinct", type=int, default=64, help="pairs that are made; the others are copies of their files")
    parser.add_argument("--folder_pairs", type=int, default=None, help="pairs an epoch of the folder, to save time; all if not given")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; a temporary folder if not given")
    parser.add_argument("--codecs", action="store_true", help="compare codecs instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.codecs:
        codecs()
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        compare(args, Path(folder))


if __name__ == "__main__":
    main()
