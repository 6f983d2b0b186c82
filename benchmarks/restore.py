"""CPU seconds that `restore` takes with the shipped nano, by size of the photograph and by stage;
beside those of an earlier commit.

    python benchmarks/restore.py --sizes 480x320 1920x1080 4000x3000 --against f26072a
    python benchmarks/restore.py --sizes 480x320 --rounds 3 --dtype float32 --light 1

Every round starts one process for each tree and setting, in turn, so that other load on the machine
meets both. Times are user and system seconds of the process (resource.getrusage); medians over the
rounds. The picture is dark, so that everything is needed. --light 1 gives one that is neither dark
nor hazy, for which restore spares the branch. "start" is all until the first photograph. FLOPs are
those of matrix products, convolutions and attention; no load changes them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def seconds() -> float:
    """User and system seconds of this process until now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def photograph(width: int, height: int, light: float) -> Any:
    """Returns a smooth picture with noise, (1, 3, H, W) in [0, 1], the same for the same size.

    Its values are multiplied by `light`.
    """
    import torch
    import torch.nn.functional as F

    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, max(2, height // 32), max(2, width // 32), generator=draw)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return light * (smooth + 0.04 * torch.randn(smooth.shape, generator=draw)).clamp(0, 1)


def timed(owner: Any, name: str, label: str, spent: Counter) -> None:
    """Replaces a function by one that adds its seconds to `spent[label]`."""
    function: Callable[..., Any] = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        start = seconds()
        try:
            return function(*args, **kwargs)
        finally:
            spent[label] += seconds() - start

    setattr(owner, name, counted)


def child(
    sizes: list[str], threads: int, options: dict[str, Any], flops: bool, light: float
) -> None:
    """Restores one picture of each size, and prints what it took as one line of JSON.

    It runs in the tree that PYTHONPATH names, so it asks for nothing that only this tree has.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    inference = "lit_mimdit.inference"
    files = [f"{inference}.{name}" for name in ("restorer", "latent_restorer", "tiled_vae")]
    modules = [import_module(name) for name in files if find_spec(name)]
    try:
        load_restorer = import_module(f"{inference}.loading").load_restorer
    except ImportError:  # it was elsewhere until 2026-11-30
        load_restorer = import_module(f"{inference}.restore").load_restorer

    torch.set_num_threads(threads)
    restorer = load_restorer(fidelity="package", device="cpu", **options)
    restorer.skip_unused = True  # as restore has it, where it knows that
    found: dict[str, Any] = {"start": seconds()}
    spent: Counter = Counter()
    labels = {"encode": "VAE, encoder", "decode": "VAE, decoder", "without_spots": "spots"}
    for module in modules:  # each has its own name of what it imports
        for name in labels.keys() & vars(module).keys():
            timed(module, name, labels[name], spent)
    corrector = type(restorer.corrector)
    if hasattr(corrector, "prepared"):
        timed(corrector, "prepared", "before the branch", spent)
    timed(corrector, "__call__", "fidelity network", spent)
    timed(restorer.network, "_base", "base of the condition", spent)
    timed(restorer.network, "_ask", "branch", spent)
    timed(restorer.network, "_velocity", "steps", spent)
    seed = torch.tensor([0])
    restorer(photograph(96, 96, light), seed)  # loads every kernel
    for size in sizes:
        picture = photograph(*(int(side) for side in size.split("x")), light)
        spent.clear()
        if flops:
            with FlopCounterMode(display=False) as counter:
                restorer(picture, seed)
            found[size] = {"gflop": counter.get_total_flops() / 1e9}
            continue
        start = seconds()
        restorer(picture, seed)
        whole = seconds() - start
        found[size] = {"whole": whole, **spent, "rest": whole - sum(spent.values())}
    print(json.dumps(found))


def measure(tree: Path, args: argparse.Namespace, flops: bool) -> dict[str, Any]:
    """Runs `child` in a process on the code of `tree`."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(args.threads)}
    command = [sys.executable, str(Path(__file__).resolve()), "--child", "--threads"]
    command += [str(args.threads), "--sizes", *args.sizes, *(["--flops"] if flops else [])]
    command += ["--dtype", args.dtype if tree == ROOT else "float32", "--light", str(args.light)]
    done = subprocess.run(
        command, env=environment, cwd=tree, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["480x320"], help="WIDTHxHEIGHT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--against", help="commit to measure beside this tree")
    parser.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="of this tree's backbone and VAE; an earlier commit computes in float32",
    )
    parser.add_argument("--light", type=float, default=0.1, help="factor on the picture's values")
    parser.add_argument("--flops", action="store_true", help="count operations, not seconds")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.sizes, args.threads, {"dtype": args.dtype}, args.flops, args.light)
        return
    with tempfile.TemporaryDirectory() as folder:
        trees = {"now": ROOT}
        if args.against:
            trees[args.against] = Path(folder) / "tree"
            git = ["git", "-C", str(ROOT), "worktree"]
            subprocess.run(
                [*git, "add", "--detach", trees[args.against], args.against],
                check=True,
                capture_output=True,
            )
        try:
            rounds = 1 if args.flops else args.rounds
            found = [
                {name: measure(tree, args, args.flops) for name, tree in trees.items()}
                for _ in range(rounds)
            ]
        finally:
            if args.against:
                subprocess.run([*git, "remove", "--force", trees[args.against]], check=True)
    show(found, list(trees), args)


def show(found: list[dict[str, Any]], names: list[str], args: argparse.Namespace) -> None:
    """Prints one table: a row for each size and stage, a column for each tree, and the ratio."""
    print(f"| {'GFLOP' if args.flops else 'CPU seconds'} | {' | '.join(reversed(names))} | ratio |")
    print("|---|" + "---:|" * (len(names) + 1))

    def row(label: str, values: Callable[[dict[str, Any]], float]) -> None:
        medians = [statistics.median(values(one[name]) for one in found) for name in names]
        ratio = f"{medians[0] / medians[1]:.2f}" if len(names) > 1 and medians[1] else ""
        cells = " | ".join(f"{median:.2f}" for median in reversed(medians))
        print(f"| {label} | {cells} | {ratio} |", flush=True)

    if not args.flops:
        row("start", lambda one: one["start"])
    for size in args.sizes:
        for stage in {stage: None for one in found[0].values() for stage in one[size]}:
            name = size if stage in ("whole", "gflop") else f"{size}, {stage}"
            row(name, lambda one, stage=stage, size=size: one[size].get(stage, 0.0))


if __name__ == "__main__":
    main()
