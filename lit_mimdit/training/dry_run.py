"""`fit --dry-run`:

what a run would train and how much memory it would take on each device, without weights, data or
devices.
"""

from dataclasses import fields
from functools import cache
from typing import Any

import torch
from lightning.pytorch.utilities.model_summary import ModelSummary

from lit_mimdit.data.datamodule import FoundIRDataModule, pairs_at_once
from lit_mimdit.models.geometry import read_geometry
from lit_mimdit.training.memory import Static, Step, meta_module, simulate, sizes_of, static
from lit_mimdit.training.module import MiMDiTModule
from lit_mimdit.training.settings import build

GIB = 2**30
STRATEGIES = {"ddp": (0, False)} | {
    f"zero{n}{'_offload' * o}": (n, bool(o)) for n in (1, 2, 3) for o in (0, 1)
}  # stage, offload
ROWS = {"frozen": "frozen parameters", "trained": "trained parameters", "gradients": "their gradients",
        "optimizer": "optimizer states", "average": "average (EMA)"}  # fmt: skip


def processes(devices: Any, nodes: int) -> int:
    """Processes of a run; "auto" and -1 count the GPUs of this machine, or are 1 without."""
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part]
    if isinstance(devices, list):
        return nodes * len(devices)
    count = max(1, torch.cuda.device_count()) if devices in ("auto", "-1", -1) else int(devices)
    return nodes * count


def stage_of(strategy: Any) -> tuple[str, int, bool]:
    """(name, ZeRO stage or 0, offload) of trainer.strategy.

    ValueError for a strategy whose memory is not known.
    """
    if isinstance(strategy, dict):
        kind, options = strategy["class_path"].rsplit(".", 1)[-1], strategy.get("init_args") or {}
        if kind in ("ZeRO", "ZeROOnCPU"):
            stage, offload = options.get("stage", 2), options.get("offload", False)
            return f"zero{stage}{'_offload' * offload}", stage, offload
        strategy = {"DDPStrategy": "ddp", "SingleDeviceStrategy": "auto"}.get(kind, kind)
    name = strategy.removesuffix("_cpu")
    if name in STRATEGIES:
        return name, *STRATEGIES[name]
    if name == "auto" or name.startswith("ddp"):
        return "ddp", 0, False
    raise ValueError(
        f"--dry-run: the memory of trainer.strategy {strategy!r} is not known; it knows"
        f" {', '.join(STRATEGIES)}"
    )


def on_gpu(accelerator: str, strategy: Any) -> bool:
    """Whether a run is meant for GPUs.

    "auto" is, also on a machine without: a dry run is for planning.
    """
    own = strategy["class_path"] if isinstance(strategy, dict) else strategy
    return accelerator in ("auto", "gpu", "cuda") and not own.endswith(("_cpu", "OnCPU"))


def _module_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of MiMDiTModule, typed."""
    if config["class_path"] != f"{MiMDiTModule.__module__}.{MiMDiTModule.__name__}":
        raise ValueError(
            f"--dry-run: model is {config['class_path']}; only {MiMDiTModule.__name__} can be"
            " estimated"
        )
    module = build(MiMDiTModule, config["init_args"])
    typed = {"branch": module.branch_config, "optimizer": module.optimizer_config, "flow": module.flow, "sampling": module.sampling,
             "balance": module.balance, "prompt": module.prompt}  # fmt: skip
    return config["init_args"] | typed


def dry_run(config: dict[str, Any]) -> None:
    """Print the table of modules, the parameters, and the estimate of memory for each device.

    Args:
        config: the whole configuration of `fit`, as plain values.
    """
    arguments, trainer, data = (
        _module_arguments(config["model"]),
        config["trainer"],
        config["data"]["init_args"],
    )
    if (
        config["data"]["class_path"]
        != f"{FoundIRDataModule.__module__}.{FoundIRDataModule.__name__}"
    ):
        raise ValueError(
            f"--dry-run: data is {config['data']['class_path']}; only {FoundIRDataModule.__name__}"
            " can be estimated"
        )
    world = processes(trainer["devices"], trainer["num_nodes"])
    batch = pairs_at_once(
        data["batch_size"], data["micro_batch"], world, trainer["accumulate_grad_batches"]
    )
    precision, average = (
        str(trainer["precision"] or "32-true"),
        any(c["class_path"].endswith(".EMA") for c in trainer["callbacks"] or []),
    )
    name, stage, offload = stage_of(trainer["strategy"])
    geometry = read_geometry(arguments["backbone"])
    module = meta_module(arguments, geometry)
    print(
        f"backbone {arguments['backbone']}: sizes of {geometry.origin}; neither weights nor data"
        " were read\n"
    )
    print(ModelSummary(module, max_depth=3))
    sizes = sizes_of(module)
    print(
        f"\ntrained {sizes.trained / 1e6:,.2f} M, frozen {sizes.frozen / 1e6:,.2f} M parameters\n"
    )

    gpu, configured = (
        on_gpu(trainer["accelerator"], trainer["strategy"]),
        arguments.get("gradient_checkpointing", False),
    )

    @cache
    def step(checkpointing: bool, stage: int) -> Step:
        own = arguments | {"gradient_checkpointing": checkpointing}
        return simulate(
            own, geometry, batch=batch, crop=data["crop"], precision=precision, stage=stage, gpu=gpu
        )

    device = "GPU" if gpu else "CPU"
    print(
        f"GiB on each {device} ({world} of them), {batch} pairs of {data['crop']} px at once,"
        f" {name}, {precision}"
    )
    kept = static(
        sizes, stage=stage, offload=offload, world=world, precision=precision, average=average
    )
    for line in table(
        kept,
        {checkpointing: step(checkpointing, stage) for checkpointing in (True, False)},
        configured,
    ):
        print(line)
    print(
        f"\nof all strategies, with {world} {device}{'s' * (world > 1)} and gradient checkpointing"
        " as configured:"
    )
    for other, (number, off) in STRATEGIES.items():
        found = static(
            sizes, stage=number, offload=off, world=world, precision=precision, average=average
        )
        alike = (
            stage if {number, stage} == {1, 2} else number
        )  # they differ in what is kept, not in the step
        host = f", and {found.host / GIB:.2f} on the host" if found.host else ""
        total = found.total + step(configured, alike).activations
        print(f"  {other:16}{total / GIB:8.2f}{host}{'   <- this run' * (other == name)}")
    print("\nNot in it: the context of CUDA, the allocator's gaps, and the pictures of validation.")


def table(kept: Static, steps: dict[bool, Step], configured: bool) -> list[str]:
    """Lines of the estimate: a column with gradient checkpointing, one without."""
    lines = [f"  {'gradient checkpointing':28}{'on':>8}{'off':>8}"]
    for field in fields(Static):
        if field.name in ROWS:
            lines.append(f"  {ROWS[field.name]:28}" + 2 * f"{getattr(kept, field.name) / GIB:8.2f}")
    lines.append(
        f"  {'activations, at the peak':28}"
        + "".join(f"{steps[on].activations / GIB:8.2f}" for on in (True, False))
    )
    totals = "".join(f"{(kept.total + steps[on].activations) / GIB:8.2f}" for on in (True, False))
    lines.append(f"  {'sum':28}{totals}   (this run: {'on' if configured else 'off'})")
    if kept.host:
        lines.append(f"  {'on the host beside it':28}" + 2 * f"{kept.host / GIB:8.2f}")
    lines.append(
        f"  {'TFLOP a step':28}" + "".join(f"{steps[on].flops / 1e12:8.2f}" for on in (True, False))
    )
    return lines
