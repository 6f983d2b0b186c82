"""The dry run's estimate of memory against what training steps really take, on CPUs.

    python benchmarks/memory.py                                          # all cases below, 2
    minutes
    python benchmarks/memory.py --batch 4 --crop 64 --checkpointing 1    # one
    python benchmarks/memory.py --batch 4 --gpu 1                        # sub-experts computed here
    in the way of a GPU

Each case is a process of its own: real weights of nano, two real steps with Adam in Lightning's
order. Measured is what PyTorch's allocator held at the peak of the second step, by its own
profiler: parameters, gradients, Adam's state and activations. The estimate never sees any of it.
The resident memory of the process says less: it keeps freed blocks, and maps files.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from lit_mimdit.estimate import meta_system, simulate, sizes_of
from lit_mimdit.models.mim import MiM
from lit_mimdit.settings import build
from lit_mimdit.systems.mimdit import MiMDiT
from lit_mimdit.training.strategy_memory import static

MIB = 2**20
CASES = [  # pairs, pixels, gradient checkpointing, precision, sub-experts as a GPU computes them
    (16, 64, 0, "32-true", 0),
    (16, 64, 1, "32-true", 0),
    (8, 128, 0, "32-true", 0),
    (8, 128, 1, "32-true", 0),
    (8, 128, 1, "bf16-mixed", 0),
    (16, 64, 0, "32-true", 1),
    (16, 64, 1, "32-true", 1),
    (8, 128, 0, "bf16-mixed", 1),
]


def settings(checkpointing: int) -> dict:
    """The quickstart's model; `base: zero` as in the paper."""
    path = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"
    module = build(MiMDiT, yaml.safe_load(path.read_text())["model"]["init_args"])
    parts = {"optimizer": module.optimizer_config, "flow": module.flow, "sampling": module.sampling}
    branch = replace(module.branch_config, base="zero", chained=False)
    return {
        "backbone": "nano",
        "branch": branch,
        "gradient_checkpointing": bool(checkpointing),
    } | parts


def step(
    module: MiMDiT, optimizer: torch.optim.Optimizer, batch: int, crop: int, precision: str
) -> None:
    """As Lightning orders it: forward, zero_grad, backward, optimizer."""
    device = module.device
    images = {name: torch.rand(batch, 3, crop, crop, device=device) for name in ("lq", "gt")}
    data = images | {"seed": torch.arange(batch), "id": [""] * batch, "degradation": [""] * batch}
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = module.training_step(data, 0)["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def measure(batch: int, crop: int, checkpointing: int, precision: str, gpu: int) -> int:
    """Bytes at the peak of the second step, model included."""
    MiM.as_on_gpu = bool(gpu)
    module = MiMDiT(**settings(checkpointing))
    module.log = module.log_dict = lambda *args, **options: None
    module.configure_model()
    module.train()
    optimizer = torch.optim.Adam(module.network.branch.parameters(), lr=1e-3)
    step(module, optimizer, batch, crop, precision)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    state = [value for values in optimizer.state.values() for value in values.values()]
    live = sum(
        tensor.nbytes for tensor in [*module.parameters(), *module.buffers(), *gradients, *state]
    )
    del gradients
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step(module, optimizer, batch, crop, precision)
    events = [
        event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return live + max(accumulate(changes))


def estimate(
    batch: int, crop: int, checkpointing: int, precision: str, gpu: int
) -> tuple[int, int]:
    """(activations, all) in bytes."""
    arguments = settings(checkpointing)
    step = simulate(MiMDiT, arguments, batch=batch, crop=crop, precision=precision, gpu=bool(gpu))
    kept = static(
        sizes_of(meta_system(MiMDiT, arguments)),
        stage=0,
        offload=False,
        world=1,
        precision=precision,
        average=False,
    )
    return step.activations, kept.total + step.activations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--checkpointing", type=int, default=0)
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--gpu", type=int, default=0, help="1: sub-experts as a GPU computes them")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="print the bytes of this case alone; what the others run in a process",
    )
    args = parser.parse_args()
    case = (args.batch, args.crop, args.checkpointing, args.precision, args.gpu)
    if args.measure:
        print(json.dumps(measure(*case)))
        return
    columns = f"{'pairs':>5} {'px':>4} {'checkpointing':>13} {'precision':>10} {'gpu':>3}"
    print(f"{columns} {'activations':>12} {'estimated':>10} {'measured':>9}  MiB")
    for chosen in CASES if args.batch is None else [case]:
        batch, crop, checkpointing, precision, gpu = chosen
        options = [
            "--batch",
            batch,
            "--crop",
            crop,
            "--checkpointing",
            checkpointing,
            "--precision",
            precision,
            "--gpu",
            gpu,
            "--measure",
        ]
        command = [sys.executable, __file__, *map(str, options)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        measured = json.loads(done.stdout)
        activations, total = estimate(*chosen)
        sizes = f"{activations / MIB:12.1f} {total / MIB:10.1f} {measured / MIB:9.1f}"
        print(
            f"{batch:5} {crop:4} {checkpointing:13} {precision:>10} {gpu:3} {sizes} "
            f" {total / measured - 1:+.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
