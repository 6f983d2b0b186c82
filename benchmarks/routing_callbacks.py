"""What the routing callbacks cost: their time beside that of the training steps they look at.

    python benchmarks/routing_callbacks.py --config experiments/quickstart.yaml

In one process, alternately: a real training step (forward, backward, optimizer), and what every
routing callback of the YAML does after it; then, on a whole interval's images, what each writes.
Medians, and the sum of both at the YAML's intervals over the time of a step.
"""

import argparse
import importlib
import statistics
import tempfile
import time
from types import SimpleNamespace

import torch
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils._pytree import tree_map_only

from lit_mimdit.data.datamodule import FoundIRDataModule
from lit_mimdit.data.pairs import with_floats
from lit_mimdit.models.flow import (
    interpolate,
    loss_per_sample,
    sample_noise,
    sample_times,
    velocity,
)
from lit_mimdit.models.latents import encode
from lit_mimdit.settings import build
from lit_mimdit.systems.mimdit import MiMDiT
from lit_mimdit.training.callbacks.window import RoutingCallback


def seconds(function, *args) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def step(module: MiMDiT, optimizer: torch.optim.Optimizer, batch: dict, outputs: dict) -> None:
    """What MiMDiT.training_step and Lightning do, and the outputs that callbacks get."""
    z_gt, z_lq = encode(module.vae, batch["gt"]), encode(module.vae, batch["lq"])
    noise, normal = sample_noise(batch["seed"], tuple(z_gt.shape[1:]))
    t = sample_times(normal, module.flow)
    condition = module.network.condition(z_lq)
    predicted = module.network(interpolate(z_gt, noise, t), t, condition)
    loss_per_sample(predicted, velocity(z_gt, noise), t, module.flow.weighting).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    outputs["routing"] = tree_map_only(torch.Tensor, torch.Tensor.detach, condition.routing)


def routing_callbacks(config: dict) -> list[RoutingCallback]:
    """The routing callbacks of a configuration, built with its arguments."""
    callbacks = []
    for entry in config["trainer"]["callbacks"]:
        path, name = entry["class_path"].rsplit(".", 1)
        kind = getattr(importlib.import_module(path), name)
        if isinstance(kind, type) and issubclass(kind, RoutingCallback):
            callbacks.append(kind(**entry.get("init_args", {})))
    return callbacks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="experiments/quickstart.yaml")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--looks", type=int, default=3, help="times that each callback writes")
    args = parser.parse_args()
    with open(args.config) as file:
        config = yaml.safe_load(file)
    module = build(MiMDiT, config["model"]["init_args"])
    module.configure_model()
    module.train()
    data = build(FoundIRDataModule, config["data"]["init_args"])
    data.prepare_data()
    endless = (with_floats(batch) for _ in iter(int, 1) for batch in data.train_dataloader())
    batches = [batch for batch, _ in zip(endless, range(args.steps + args.warmup))]
    optimizer = torch.optim.Adam(module.network.branch.parameters(), lr=module.optimizer_config.lr)
    looking = routing_callbacks(config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SimpleNamespace(
            global_step=1,
            loggers=[TensorBoardLogger(folder)],
            is_global_zero=True,
            sanity_checking=False,
        )
        steps, collecting = [], {callback: [] for callback in looking}
        seen = []
        for index, batch in enumerate(batches):
            outputs: dict = {}
            trainer.global_step = 1  # no look is due
            taken = seconds(step, module, optimizer, batch, outputs)
            each = {
                callback: seconds(
                    callback.on_train_batch_end, trainer, module, outputs, batch, index
                )
                for callback in looking
            }
            if index >= args.warmup:
                steps.append(taken)
                seen.append((batch, outputs))
                for callback, value in each.items():
                    collecting[callback].append(value)
        whole = statistics.median(steps)
        print(
            f"{'step':20} {1000 * whole:8.1f} ms, batch {data.batch_size},"
            f" {torch.get_num_threads()} threads"
        )
        total = 0.0
        for callback in looking:
            writing = []
            for look in range(args.looks):
                callback._seen["train"], interval = [], callback.every_n_steps
                for number in range(interval - 1):
                    batch, outputs = seen[number % len(seen)]
                    batch = batch | {
                        "seed": batch["seed"] + number // len(seen)
                    }  # as many different samples as there would be
                    callback.on_train_batch_end(trainer, module, outputs, batch, number)
                trainer.global_step = interval * (look + 1)
                batch, outputs = seen[0]
                writing.append(
                    seconds(callback.on_train_batch_end, trainer, module, outputs, batch, interval)
                )
                trainer.global_step = interval * (look + 1) + 1
            each, write = statistics.median(collecting[callback]), statistics.median(writing)
            cost = each + write / callback.every_n_steps
            total += cost
            print(
                f"{type(callback).__name__:20} {1000 * each:8.2f} ms a step, {1000 * write:8.1f} ms"
                f" every {callback.every_n_steps} steps: {100 * cost / whole:5.2f} % of a step"
            )
        trainer.loggers[0].finalize("success")  # its thread still writes into the folder
        print(f"{'together':20} {100 * total / whole:5.2f} % of a step")


if __name__ == "__main__":
    main()
