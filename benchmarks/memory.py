"""The dry run's estimate of memory against what training steps really take, on CPUs.

    python benchmarks/memory.py                                          # all cases below, 10 minutes
    python benchmarks/memory.py --batch 4 --crop 64 --checkpointing 1    # one

Each case is a process of its own: real weights of nano, two real steps with Adam in Lightning's order; the peak of the resident memory
(VmHWM of /proc) above what the process had before it built the model. The estimate never sees any of it.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from lit_mimdit.models.geometry import read_geometry
from lit_mimdit.training.memory import meta_module, simulate, sizes_of, static
from lit_mimdit.training.module import MiMDiTModule
from lit_mimdit.training.settings import build

MIB = 2**20
CASES = [  # pairs, pixels, gradient checkpointing, precision
    (16, 64, 0, "32-true"),
    (16, 64, 1, "32-true"),
    (8, 128, 0, "32-true"),
    (8, 128, 1, "32-true"),
    (8, 128, 1, "bf16-mixed"),
]


def settings(checkpointing: int) -> dict:
    """The quickstart's model; `base: zero` as in the paper."""
    path = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"
    module = build(MiMDiTModule, yaml.safe_load(path.read_text())["model"]["init_args"])
    parts = {"optimizer": module.optimizer_config, "flow": module.flow, "sampling": module.sampling}
    branch = replace(module.branch_config, base="zero", chained=False)
    return {"backbone": "nano", "branch": branch, "gradient_checkpointing": bool(checkpointing)} | parts


def resident(key: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0]) * 1024


def steps(module: MiMDiTModule, batch: int, crop: int, precision: str, count: int) -> None:
    """As Lightning orders it: forward, zero_grad, backward, optimizer."""
    optimizer = torch.optim.Adam(module.network.branch.parameters(), lr=1e-3)
    images = {name: torch.rand(batch, 3, crop, crop) for name in ("lq", "gt")}
    data = images | {"seed": torch.arange(batch), "id": [""] * batch, "degradation": [""] * batch}
    for _ in range(count):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = module.training_step(data, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def new_module(checkpointing: int) -> MiMDiTModule:
    module = MiMDiTModule(**settings(checkpointing))
    module.log = module.log_dict = lambda *args, **options: None
    module.configure_model()
    return module.train()


def measure(batch: int, crop: int, checkpointing: int, precision: str) -> int:
    """Bytes at the peak of two steps, model included."""
    steps(new_module(checkpointing), 1, 32, precision, 1)  # code and kernels are loaded
    gc.collect()  # a LightningModule holds itself in circles, and would be counted as there before
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    steps(new_module(checkpointing), batch, crop, precision, 2)
    return resident("VmHWM") - before


def estimate(batch: int, crop: int, checkpointing: int, precision: str) -> tuple[int, int]:
    """(activations, all) in bytes."""
    arguments, geometry = settings(checkpointing), read_geometry("nano")
    step = simulate(arguments, geometry, batch=batch, crop=crop, precision=precision, sharded=False)
    kept = static(sizes_of(meta_module(arguments, geometry)), stage=0, offload=False, world=1, precision=precision, average=False)
    return step.activations, kept.total + step.activations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--checkpointing", type=int, default=0)
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--measure", action="store_true", help="print the bytes of this case alone; what the others run in a process")
    args = parser.parse_args()
    case = (args.batch, args.crop, args.checkpointing, args.precision)
    if args.measure:
        print(json.dumps(measure(*case)))
        return
    print(f"{'pairs':>5} {'px':>4} {'checkpointing':>13} {'precision':>10} {'activations':>12} {'estimated':>10} {'measured':>9}  MiB")
    # blocks go back to the system when they are freed, so that the resident memory is the memory in use
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for batch, crop, checkpointing, precision in CASES if args.batch is None else [case]:
        options = ["--batch", batch, "--crop", crop, "--checkpointing", checkpointing, "--precision", precision, "--measure"]
        command = [sys.executable, __file__, *map(str, options)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        measured = json.loads(done.stdout)
        activations, total = estimate(batch, crop, checkpointing, precision)
        sizes = f"{activations / MIB:12.1f} {total / MIB:10.1f} {measured / MIB:9.1f}"
        print(f"{batch:5} {crop:4} {checkpointing:13} {precision:>10} {sizes}  {total / measured - 1:+.0%}", flush=True)


if __name__ == "__main__":
    main()
