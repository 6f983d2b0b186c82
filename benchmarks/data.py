"""Pairs a second from shards, from a folder of PNGs as restoration code bases read it, and from
decoding alone; side by side in one run.

    python benchmarks/data.py --folder_pairs 512              # 2,048 pairs, about 21 GB of disk
    python benchmarks/data.py --codecs                        # what each codec costs

The pairs are 1920 x 1080: crops of the photographs of installed packages, enlarged, with noise of 2
levels; LQ blurred before the noise. `--distinct` of them are made and sharded; the others are the
same under other names: links to the PNG files, written again in the shards. The shards hold
lossless tiles of the crop's side. "decode only" decodes such tiles from memory and hands on
nothing.

The three take turns, `--turns` in each epoch, with workers that live for the epoch; whose turn it
is not is idle. What was fetched ahead of a turn does not count. Printed are the medians over all
turns, and of the ratios in a turn: another load on the machine hits all three.
"""

import argparse
import io
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms.functional import to_tensor
from tqdm import tqdm

from lit_mimdit.data import photographs
from lit_mimdit.data.buffers import SharedBuffers
from lit_mimdit.data.memory import keep_freed_memory
from lit_mimdit.data.mixing import training_order
from lit_mimdit.data.order import Cluster, EpochSampler, ResumableLoader
from lit_mimdit.data.pairs import PairDataset, collate
from lit_mimdit.data.shards.codec import encode
from lit_mimdit.data.shards.jobs import finish, start
from lit_mimdit.data.shards.manifest import MANIFEST
from lit_mimdit.data.shards.source import ShardedPair, ShardSource
from lit_mimdit.data.shards.write import shard
from lit_mimdit.data.shards.writer import ShardWriter
from lit_mimdit.data.tiles import Region

WIDTH, HEIGHT = 1920, 1080


def make_pair(number: int) -> tuple[np.ndarray, np.ndarray]:
    """LQ and GT (1080, 1920, 3) uint8."""
    draw = np.random.default_rng(number)
    photograph = Image.fromarray(photographs.load(photographs.PHOTOGRAPHS[number % 5].name))
    scale = min(photograph.width / WIDTH, photograph.height / HEIGHT) * draw.uniform(0.5, 1)
    left, top = (
        draw.uniform(0, photograph.width - WIDTH * scale),
        draw.uniform(0, photograph.height - HEIGHT * scale),
    )
    clean = photograph.resize(
        (WIDTH, HEIGHT),
        Image.Resampling.LANCZOS,
        box=(left, top, left + WIDTH * scale, top + HEIGHT * scale),
    )
    images = clean.filter(ImageFilter.GaussianBlur(2)), clean
    lq, gt = (
        (np.float32(image) + draw.normal(0, 2, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8)
        for image in images
    )
    return lq, gt


def make_folder(root: Path, pairs: int, distinct: int) -> None:
    """A folder of PNGs; pairs behind the first `distinct` are links to those."""
    for side in ("GT", "LQ"):
        (root / "01Blur" / side).mkdir(parents=True)
    for number in tqdm(range(pairs), desc="making pairs", unit="pair"):
        paths = [root / "01Blur" / side / f"{number:06d}.png" for side in ("LQ", "GT")]
        if number >= distinct:
            for path in paths:
                os.link(path.with_name(f"{number % distinct:06d}.png"), path)
            continue
        for path, pixels in zip(paths, make_pair(number)):
            Image.fromarray(pixels).save(path, compress_level=1)


def repeat(source: ShardSource, folder: Path, pairs: int, shard_pairs: int = 64) -> None:
    """Shards of as many pairs: those of `source` again and again."""
    settings = source.manifest.settings
    start(folder, settings, [(str(number),) for number in range(pairs)])
    firsts = range(0, pairs, shard_pairs)
    for number, first in enumerate(tqdm(firsts, desc="writing shards", unit="shard")):
        with ShardWriter(folder, number) as writer:
            for place in range(first, min(first + shard_pairs, pairs)):
                shard_number, row = source._locate(place % len(source))
                held = source._index(shard_number)
                tiles = range(int(held.first[row]), int(held.first[row + 1]))
                members = (
                    [
                        *zip(
                            ("lq.webp", "gt.webp"),
                            source._members(shard_number, held, tile, [0, 1]),
                        )
                    ]
                    for tile in tiles
                )
                boxes = [Region(*map(int, held.boxes[tile])) for tile in tiles]
                writer.add(
                    ShardedPair(f"{place:06d}", "01Blur"), HEIGHT, WIDTH, zip(boxes, members)
                )
    finish(folder, "images", settings, ["01Blur"], len(firsts), [])


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
        self.tiles = [
            source._members(0, held, tile, [0, 1]) for tile in range(min(count, len(held.boxes)))
        ]

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> int:
        for data in self.tiles[index % len(self.tiles)]:
            with Image.open(io.BytesIO(data)) as image:
                np.asarray(image)
        return 0


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def rss(pid: int) -> float:
    """Resident memory of a process, MiB (Linux)."""
    return (
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    )


def cpu_seconds(pids: set[int]) -> float:
    """CPU time that processes have taken so far, user and system (Linux, in steps of 10 ms)."""
    ticks = [
        sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
        for pid in pids
    ]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def wait_for_idle() -> None:
    """Wait until no worker has done anything for a third of a second.

    What it fetches ahead must not take the next one's time.
    """
    before = -1.0
    while (now := cpu_seconds(children())) != before:
        before = now
        time.sleep(0.3)


def turn(batches: Iterator[Any], ahead: int, count: int, workers: set[int]) -> tuple[float, float]:
    """Batches a second of the next `count` behind the `ahead` that were fetched before, and CPU
    time of the workers a batch, ms.
    """
    for _ in range(ahead):
        next(batches)
    cpu, begin = cpu_seconds(workers), time.perf_counter()
    for _ in range(count):
        next(batches)
    return count / (time.perf_counter() - begin), 1000 * (cpu_seconds(workers) - cpu) / count


def make(args: argparse.Namespace, folder: Path) -> None:
    """The folder of PNGs and the shards."""
    distinct = min(args.distinct, args.pairs)
    make_folder(folder / "png", args.pairs, distinct)
    listed = "".join(
        f"01Blur/GT/{number:06d}.png, 01Blur/LQ/{number:06d}.png\n" for number in range(distinct)
    )
    (folder / "distinct.txt").write_text(listed)
    begin = time.perf_counter()
    shard(
        folder / "png",
        folder / "distinct",
        meta=folder / "distinct.txt",
        tile=args.crop,
        workers=args.workers,
    )
    print(
        f"sharding: {distinct / (time.perf_counter() - begin):.1f} pairs/s, {args.workers} workers"
    )
    repeat(ShardSource(str(folder / "distinct")), folder / "shards", args.pairs)


def compare(args: argparse.Namespace, folder: Path) -> None:
    if not (folder / "shards" / MANIFEST).is_file():
        make(args, folder)
    source = ShardSource(str(folder / "shards"))
    distinct, stored = (
        len(ShardSource(str(folder / "distinct"))),
        sum(entry.bytes for entry in source.manifest.shards),
    )
    print(
        f"{len(source)} pairs ({distinct} distinct), {args.workers} workers, batch {args.batch},"
        f" shards {stored / 1e9:.2f} GB",
        flush=True,
    )

    order = training_order(source.table(), "natural", None, 0)
    sampler = EpochSampler(len(source), args.batch, 0, True, True, Cluster(), order)
    dataset = PairDataset(source, args.crop, True, "dihedral", 0, replace=True)
    options = {
        "batch_size": args.batch,
        "num_workers": args.workers,
        "shuffle": True,
        "drop_last": True,
    }
    plain = Subset(
        PlainFolder(folder / "png", args.crop),
        range(min(args.folder_pairs or args.pairs, args.pairs)),
    )
    loaders = {
        "folder": DataLoader(plain, **options),
        "shards": ResumableLoader(
            dataset,
            sampler,
            num_workers=args.workers,
            collate_fn=SharedBuffers(collate),
            worker_init_fn=keep_freed_memory,
        ),
        "decode only": DataLoader(
            DecodeOnly(source, 64, args.pairs), worker_init_fn=keep_freed_memory, **options
        ),
    }
    ahead = 2 * args.workers  # DataLoader's prefetch_factor
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    costs: dict[str, list[float]] = {name: [] for name in loaders}
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        running, workers = {}, {}
        for name, loader in loaders.items():
            before = children()
            running[name] = iter(loader)
            next(running[name])  # some loaders start their workers here
            workers[name] = children() - before
        for number in range(args.turns):
            for name, batches in running.items():
                count = len(loaders[name]) // args.turns - ahead - 1
                wait_for_idle()
                rate, cost = turn(batches, ahead, count, workers[name])
                rates[name].append(args.batch * rate)
                costs[name].append(cost / args.batch)
            shown = "  ".join(
                f"{name} {rates[name][-1]:6.1f} ({costs[name][-1]:5.1f} ms)" for name in loaders
            )
            memory = (
                f"RSS parent {rss(os.getpid()):5.0f}, workers"
                f" {' '.join(f'{rss(pid):5.0f}' for pid in sorted(workers['shards']))} MiB"
            )
            print(f"epoch {epoch} turn {number}  {shown}  {memory}", flush=True)
        del running, batches
    for name, values in rates.items():
        print(
            f"{name:12} {statistics.median(values):7.1f} pairs/s "
            f" {statistics.median(costs[name]):6.1f} ms of the workers' CPU time a pair"
        )
    for name in ("folder", "decode only"):
        ratios = [ours / other for ours, other in zip(rates["shards"], rates[name])]
        cpu = statistics.median(other / ours for ours, other in zip(costs["shards"], costs[name]))
        print(
            f"shards / {name}: {statistics.median(ratios):.2f} (turns {min(ratios):.2f} to"
            f" {max(ratios):.2f}); by CPU time {cpu:.2f}"
        )


def median_ms(function: Callable[[Any], Any], items: list[Any], runs: int = 5) -> float:
    """CPU time an item."""
    times = []
    for _ in range(runs):
        begin = time.process_time()
        for item in items:
            function(item)
        times.append(1000 * (time.process_time() - begin) / len(items))
    return statistics.median(times)


def codecs() -> None:
    tiles = [
        make_pair(number)[1][y : y + 512, x : x + 512].copy()
        for number in range(4)
        for y, x in ((0, 0), (300, 800))
    ]
    print("codec          write ms  read ms  bytes a pixel")
    for codec, quality in (("png", None), ("webp", None), ("webp", 90), ("jpeg", 95)):
        stored = [encode(tile, codec, quality)[1] for tile in tiles]
        write = median_ms(lambda tile, c=codec, q=quality: encode(tile, c, q), tiles)
        read = median_ms(
            lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), stored
        )
        name = f"{codec} {quality or 'lossless'}"
        print(
            f"{name:14} {write:8.1f} {read:8.1f}"
            f" {sum(map(len, stored)) / len(stored) / 512**2:10.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument(
        "--distinct",
        type=int,
        default=64,
        help="pairs that are made; the others are the same under other names",
    )
    parser.add_argument(
        "--folder_pairs",
        type=int,
        default=None,
        help="pairs an epoch of the folder, to save time; all if not given",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=4, help="of each side in an epoch")
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="keeps the data for the next run; temporary if not given",
    )
    parser.add_argument("--codecs", action="store_true", help="compare codecs instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.codecs:
        codecs()
        return
    if args.folder is not None:
        compare(args, args.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


if __name__ == "__main__":
    main()
