"""What sparse routing saves: an Intra-MoE with top-2 of 4 sub-experts against all 4, forward and
backward.

    python benchmarks/sparse.py                     # the width of
    experiments/foundir_sd35_medium.yaml at 512 x 512 pixels python benchmarks/sparse.py --batch 16
    --compile python benchmarks/sparse.py --batch 16 --rounds 30 --device cuda --autocast

Both sides have the same weights and inputs and alternate in one process; medians of CPU seconds, or
of seconds on a GPU. The last row is a whole MiM, with its projections and feed-forward layer, which
are the same on both sides.
"""

import argparse
import statistics
from dataclasses import replace

import torch
from clock import name as name_of
from clock import timed, unit
from torch import nn

from lit_mimdit.models.branch_config import GROUPS, BranchConfig, IntraConfig
from lit_mimdit.models.mim import MiM


def seconds_of(mim: nn.Module, x: torch.Tensor, side: int, autocast: bool) -> float:
    def step() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            output = mim(x, (side, side))[0]
        output.float().square().mean().backward()

    return timed(x.device, step)[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--outer", type=int, default=1536, help="width of the backbone")
    parser.add_argument("--side", type=int, default=32, help="of the square grid of tokens")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument(
        "--autocast", action="store_true", help="products in bfloat16, as a GPU trains"
    )
    parser.add_argument("--compile", action="store_true", help="both sides by torch.compile")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    x = torch.randn(args.batch, args.side**2, args.outer) + torch.randn(args.batch, 1, args.outer)
    x = x.to(args.device)
    how = f"autocast: {args.autocast}, compiled: {args.compile}"
    print(
        f"width {args.width}, {args.side**2} tokens, batch {args.batch}, {name_of(args.device)},"
        f" {how}"
    )
    print(
        f"| groups | top-2 of 4 ({unit(args.device)}) | all 4 | ratio | images an expert works on,"
        " first group |\n|---|---:|---:|---:|---|"
    )
    for groups in ([kind] for kind in GROUPS):
        compare(
            args, BranchConfig(width=args.width, heads=args.heads, groups=groups), x, inner=True
        )
    compare(args, BranchConfig(width=args.width, heads=args.heads), x, inner=False)


class Inner(nn.Module):
    """The groups of a MiM by themselves, on tokens of its own width."""

    def __init__(self, mim: MiM) -> None:
        super().__init__()
        self.mim = mim
        mim.feed_forward, mim.project, mim.zero_linear = Zero(), nn.Identity(), nn.Identity()

    def forward(self, x: torch.Tensor, grid: tuple[int, int]) -> tuple:
        return self.mim(x, grid)


class Zero(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def compare(args: argparse.Namespace, config: BranchConfig, x: torch.Tensor, inner: bool) -> None:
    sides: dict[int, nn.Module] = {}
    for top_k in (4, 2):
        torch.manual_seed(0)  # the same weights
        mim = MiM(
            args.outer, replace(config, intra=IntraConfig(4, top_k), zero_std=0.02), shifted=True
        )
        sides[top_k] = (Inner(mim) if inner else mim).to(args.device)
    x = x[..., : args.width] if inner else x
    with torch.no_grad():
        load = sides[2](x, (args.side, args.side))[2].intra[0].load
    run = {k: torch.compile(side) if args.compile else side for k, side in sides.items()}
    seconds: dict[int, list[float]] = {top_k: [] for top_k in sides}
    for number in range(args.rounds + 1):
        for top_k, side in run.items():
            taken = seconds_of(side, x, args.side, args.autocast)
            if number:
                seconds[top_k].append(taken)
    sparse, dense = statistics.median(seconds[2]), statistics.median(seconds[4])
    name = f"{config.groups[0]} alone" if inner else "whole MiM, all four"
    print(
        f"| {name} | {sparse:.4f} | {dense:.4f} | {sparse / dense:.2f} |"
        f" {(load * len(x)).int().tolist()} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
