"""Where the time of a training step goes: data, VAE, branch, frozen backbone, optimizer.

    python benchmarks/train_step.py --config experiments/quickstart.yaml --steps 12

Medians over the steps, after a warm-up, in one process. The backward pass is cut at the keys and
values that join branch and backbone, which changes no number: first from the loss to them
(backbone), then from them to the parameters (branch).
"""

import argparse
import statistics
import time
from collections import defaultdict

import torch
import yaml
from torch.nn.attention import sdpa_kernel

from lit_mimdit.data.datamodule import FoundIRDataModule
from lit_mimdit.data.pairs import with_floats
from lit_mimdit.models.condition import Condition
from lit_mimdit.models.flow import (
    interpolate,
    loss_per_sample,
    sample_noise,
    sample_times,
    velocity,
)
from lit_mimdit.models.injection import BlockCondition
from lit_mimdit.models.latents import encode
from lit_mimdit.settings import build
from lit_mimdit.systems.mimdit import MiMDiT


class Clock:
    """Adds the time since the last call to a named part."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = defaultdict(list)
        self.last = time.perf_counter()

    def __call__(self, part: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.parts[part].append(now - self.last)
        self.last = now


def step(module: MiMDiT, optimizer: torch.optim.Optimizer, batches, clock: Clock) -> None:
    """One optimizer step with the clock between its parts."""
    clock.last = time.perf_counter()
    batch = next(batches)
    clock("data")
    z_gt, z_lq = encode(module.vae, batch["gt"]), encode(module.vae, batch["lq"])
    clock("VAE")
    noise, normal = sample_noise(batch["seed"], tuple(z_gt.shape[1:]))
    t = sample_times(normal, module.flow)
    condition = module.network.condition(z_lq)
    clock("branch")
    cut = Condition(
        tuple(
            BlockCondition(*(x.detach().requires_grad_() for x in b[:2]), b.gate)
            for b in condition.blocks
        ),
        condition.routing,
    )
    predicted = module.network(interpolate(z_gt, noise, t), t, cut)
    loss_per_sample(predicted, velocity(z_gt, noise), t, module.flow.weighting).mean().backward()
    clock("backbone")
    joints = [x for b in condition.blocks for x in b[:2]]
    torch.autograd.backward(joints, [x.grad for b in cut.blocks for x in b[:2]])
    clock("branch, backward")
    optimizer.step()
    optimizer.zero_grad()
    clock("optimizer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="experiments/quickstart.yaml")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=3)
    args = parser.parse_args()
    with open(args.config) as file:
        config = yaml.safe_load(file)
    module = build(MiMDiT, config["model"]["init_args"])
    module.configure_model()
    module.train()
    data = build(FoundIRDataModule, config["data"]["init_args"])
    data.prepare_data()
    loader = data.train_dataloader()
    batches = (with_floats(batch) for _ in iter(int, 1) for batch in loader)
    optimizer = torch.optim.Adam(module.network.branch.parameters(), lr=module.optimizer_config.lr)
    clock = Clock()
    with sdpa_kernel(module.kernels):
        for index in range(args.warmup + args.steps):
            if index == args.warmup:
                clock.parts.clear()
            step(module, optimizer, batches, clock)
    medians = {part: statistics.median(times) for part, times in clock.parts.items()}
    medians["branch"] += medians.pop("branch, backward")
    total = sum(medians.values())
    for part, seconds in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"{part:10} {1000 * seconds:8.1f} ms  {100 * seconds / total:5.1f} %")
    size = data.batch_size
    print(
        f"{'step':10} {1000 * total:8.1f} ms  {size / total:.1f} images/s, batch {size},"
        f" {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
