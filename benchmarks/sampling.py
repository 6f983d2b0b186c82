"""What conditioning costs when sampling: one frozen backbone, conditioned in several ways, 512 x
512 pixels.

    python benchmarks/sampling.py --size nano --rounds 5
    python benchmarks/sampling.py --size mid --rounds 5
    python benchmarks/sampling.py --size medium --rounds 1                # SD3.5-medium's sizes: 15
    CPU minutes a round, 6 GiB
    python benchmarks/sampling.py --size medium --rounds 1 --dtype float32    # 9 GiB
    python benchmarks/sampling.py --size medium --blocks 6 --rounds 2     # a quarter of its blocks,
    each of full size python benchmarks/sampling.py --size medium --rounds 9 --device cuda

Every round computes every system once: what it does once an image, and one step. Times on a CPU are
seconds of CPU, which other programs on the machine disturb less than the clock; with 1 thread they
are the wall time of a quiet core. Medians over the rounds; the first is thrown away if there are
several; all have run on a small latent before. A whole sampling is once + steps x step. FLOPs are
counted in the first round.
"""

import argparse
import statistics
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import replace

import torch
from clock import name as name_of
from clock import peak, timed, unit
from peers import SIZES, cut, systems
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from tqdm import tqdm

from lit_mimdit.models.compiling import compile_network

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def flash_flops(query, key, value, *args, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--blocks", type=int, help="of the backbone, if not all of the size's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[2, 40], help="sampling steps to state costs for"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="images at once")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="of the backbone, if not the size's own"
    )
    parser.add_argument(
        "--compile", action="store_true", help="blocks of backbone and branch, region by region"
    )
    parser.add_argument("--only", nargs="+", help="systems, by the start of their names")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = cut(SIZES[args.size], args.blocks)
    size = replace(size, dtype=getattr(torch, args.dtype)) if args.dtype else size
    generator = torch.Generator().manual_seed(2)
    count = args.batch * size.tiles
    x, z_lq = torch.randn(2, count, 16, size.side, size.side, generator=generator).to(args.device)
    t = torch.full((count,), 0.5, device=args.device)
    systems_of = systems(size, args.device)
    chosen = {
        name: s
        for name, s in systems_of.items()
        if not args.only or name.startswith(("bare", *args.only))
    }
    if args.compile:  # the step of MiM-DiT is its network, whose backbone all of them share
        compile_network(systems_of["MiM-DiT"].step)
    seconds, flops = defaultdict(list), {}
    for system in chosen.values():  # on a small latent: touches all weights and loads all kernels
        measure(system, x[:1, :, :16, :16], t[:1], z_lq[:1, :, :16, :16])
    for number in tqdm(range(args.rounds + (args.rounds > 1)), unit="round"):
        for name, system in tqdm(chosen.items(), unit="system", leave=False):
            once, after, counted = measure(system, x, t, z_lq, count=number == 0)
            flops.setdefault(name, counted)
            if number or args.rounds == 1:
                seconds[name].append((once, after))
    blocks = size.transformer["num_layers"]
    where, seconds_of = name_of(args.device), unit(args.device)
    print(
        f"{args.size}, {blocks} blocks, {str(size.dtype)[6:]}, batch {args.batch}, {where}, median"
        f" of {args.rounds}"
    )
    print(f"peak memory of all together {peak(args.device):.1f} GiB")
    print(
        f"| system | trained | once ({seconds_of}) | a step ({seconds_of}) |"
        + "".join(f" {n} steps | in FLOPs |" for n in args.steps)
    )
    print("|---|---:|---:|---:|" + "---:|---:|" * len(args.steps))
    costs = {
        name: tuple(statistics.median(times) for times in zip(*seconds[name], strict=True))
        for name in chosen
    }
    for name, system in chosen.items():
        trained = (
            0 if system.trained is None else sum(p.numel() for p in system.trained.parameters())
        )
        cells = [f"{trained / 1e6:.1f} M", f"{costs[name][0]:.3f}", f"{costs[name][1]:.3f}"]
        for steps in args.steps:
            cells += [
                f"{whole(what[name], steps) / whole(what['bare backbone'], steps):.2f}"
                for what in (costs, flops)
            ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def whole(cost: tuple[float, float], steps: int) -> float:
    return cost[0] + steps * cost[1]


def measure(system, x, t, z_lq, count: bool = False) -> tuple[float, float, tuple[int, ...]]:
    """Seconds of what is done once and of one step, and, where they are counted, FLOPs of both."""
    counters = [
        (
            FlopCounterMode(display=False, custom_mapping={FLASH: flash_flops})
            if count
            else nullcontext()
        )
        for _ in range(2)
    ]
    system.setup(False)
    with counters[0]:
        once, kept = timed(x.device, lambda: system.prepare(z_lq))
    system.setup(True)
    with counters[1]:
        step, _ = timed(x.device, lambda: system.step(x, t, kept))
    return once, step, tuple(counter.get_total_flops() for counter in counters) if count else ()


if __name__ == "__main__":
    main()
