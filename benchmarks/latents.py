"""What stored latents save: a training step on shards of images and on shards of their latents, in
turn, in one run.

    python benchmarks/latents.py --config experiments/quickstart.yaml --steps 12

The first training pairs of the configuration's data set are cut into tiles of its crop, sharded,
and encoded (`data shard`, `data latents`), not mirrored or turned. A step is the data, the loss,
its gradients and the optimizer's step, in one process. Wall-clock and CPU time; medians over the
steps after a warm-up, and of the ratios of neighbouring steps, which another load hits alike.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from torch.nn.attention import sdpa_kernel
from torch.utils.data import DataLoader

from lit_mimdit.data.datamodule import FoundIRDataModule
from lit_mimdit.data.pairs import with_floats
from lit_mimdit.data.shards.write import shard
from lit_mimdit.latent_shards import latents
from lit_mimdit.models.flow import (
    interpolate,
    loss_per_sample,
    sample_noise,
    sample_times,
    velocity,
)
from lit_mimdit.settings import build
from lit_mimdit.systems.mimdit import MiMDiT


def endless(loader: DataLoader) -> Iterator[dict]:
    while True:
        yield from map(with_floats, loader)


def step(module: MiMDiT, optimizer: torch.optim.Optimizer, batches: Iterator[dict]) -> float:
    """One optimizer step; its loss."""
    batch = next(batches)
    z_gt, z_lq = module._latents(batch)
    noise, normal = sample_noise(batch["seed"], tuple(z_gt.shape[1:]))
    t = sample_times(normal, module.flow)
    predicted = module.network(interpolate(z_gt, noise, t), t, module.network.condition(z_lq))
    loss = loss_per_sample(predicted, velocity(z_gt, noise), t, module.flow.weighting).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="experiments/quickstart.yaml")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=32)
    args = parser.parse_args()
    with open(args.config) as file:
        config = yaml.safe_load(file)
    settings = config["data"]["init_args"] | {"augment": "none", "workers": 0}
    data = build(FoundIRDataModule, settings)
    data.prepare_data()
    losses: dict[str, list[float]] = {}
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lines = (
            Path(settings["root"], data.meta["train"])
            .read_text()
            .splitlines(keepends=True)[: args.pairs]
        )
        Path(folder, "pairs.txt").write_text("".join(lines))
        shard(
            Path(settings["root"]),
            Path(folder, "images"),
            meta=Path(folder, "pairs.txt"),
            tile=data.crop,
            workers=1,
        )
        latents(
            Path(folder, "images"),
            Path(folder, "latents"),
            backbone=config["model"]["init_args"]["backbone"],
            dtype="float32",
        )
        sides = {}
        for name in ("images", "latents"):
            torch.manual_seed(0)
            module = build(MiMDiT, config["model"]["init_args"])
            module.configure_model()
            module.train()
            optimizer = torch.optim.Adam(
                module.network.branch.parameters(), lr=module.optimizer_config.lr
            )
            loader = build(
                FoundIRDataModule, settings | {"train": str(Path(folder, name))}
            ).train_dataloader()
            sides[name] = module, optimizer, endless(loader)
        with sdpa_kernel(module.kernels):
            for index in range(args.warmup + args.steps):
                for name, side in sides.items():
                    wall, cpu = time.perf_counter(), time.process_time()
                    losses.setdefault(name, []).append(step(*side))
                    spent = time.perf_counter() - wall, time.process_time() - cpu
                    if index >= args.warmup:
                        taken.setdefault(name, []).append(spent)
    for name, times in taken.items():
        wall, cpu = (1000 * statistics.median(part) for part in zip(*times))
        print(
            f"{name:8} {wall:7.1f} ms a step, {cpu:7.1f} ms of CPU time, batch {data.batch_size},"
            f" crop {data.crop}"
        )
    for unit, part in (("wall-clock time", 0), ("CPU time", 1)):
        ratios = [one[part] / other[part] for one, other in zip(taken["images"], taken["latents"])]
        print(
            f"images / latents, {unit}: {statistics.median(ratios):.2f} (steps {min(ratios):.2f} to"
            f" {max(ratios):.2f})"
        )
    difference = max(
        abs(one / other - 1) for one, other in zip(losses["images"], losses["latents"])
    )
    print(
        f"largest difference of the loss: {difference:.1e} of it, {args.warmup + args.steps} steps"
    )


if __name__ == "__main__":
    main()
