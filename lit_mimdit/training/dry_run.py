"""`fit --dry-run` says what a run would train and how much memory each device would need.

It needs neither weights nor data nor devices.
"""

from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

import torch
from lightning.pytorch.utilities.model_summary import ModelSummary

from lit_mimdit.data.order import pairs_at_once
from lit_mimdit.estimate import Sizes, Step, fresh, meta_system, simulate, sizes_of
from lit_mimdit.settings import build
from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.training.cards import cards
from lit_mimdit.training.strategy_memory import Static, static

GIB = 2**30
STRATEGIES = {  # name: (stage, offload)
    "ddp": (0, False),
    "zero1": (1, False),
    "zero1_offload": (1, True),
    "zero2": (2, False),
    "zero2_offload": (2, True),
    "zero3": (3, False),
    "zero3_offload": (3, True),
}
ROWS = {
    "frozen": "frozen parameters",
    "trained": "trained parameters",
    "gradients": "their gradients",
    "optimizer": "optimizer states",
    "average": "average (EMA)",
}


def processes(devices: Any, nodes: int) -> int:
    """Returns how many processes a run has; "auto" and -1 count the GPUs of this machine, or are 1
    without.
    """
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part]
    if isinstance(devices, list):
        return nodes * len(devices)
    count = max(1, torch.cuda.device_count()) if devices in ("auto", "-1", -1) else int(devices)
    return nodes * count


def stage_of(strategy: Any) -> tuple[str, int, bool]:
    """(name, ZeRO stage or 0, offload) of trainer.strategy.

    Raises ValueError for a strategy whose memory is not known.
    """
    if isinstance(strategy, dict):
        kind, options = strategy["class_path"].rsplit(".", 1)[-1], strategy.get("init_args") or {}
        if kind in ("ZeRO", "ZeROOnCPU"):
            stage, offload = options.get("stage", 2), options.get("offload", False)
            return f"zero{stage}_offload" if offload else f"zero{stage}", stage, offload
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
    """Returns whether a run is meant for GPUs.

    "auto" is, also on a machine without: a dry run is for planning.
    """
    own = strategy["class_path"] if isinstance(strategy, dict) else strategy
    return accelerator in ("auto", "gpu", "cuda") and not own.endswith(("_cpu", "OnCPU"))


def typed(config: dict[str, Any]) -> tuple[type[RestorationSystem], dict[str, Any]]:
    """Class of the configured system, and the arguments of its constructor, typed.

    Raises ValueError if it is no restoration system.
    """
    module, _, name = config["class_path"].rpartition(".")
    kind = getattr(import_module(module), name)
    if not (isinstance(kind, type) and issubclass(kind, RestorationSystem)):
        raise ValueError(
            f"--dry-run: model is {config['class_path']}; only systems that restore can be"
            " estimated (lit_mimdit/systems)"
        )
    with torch.device("meta"):
        return kind, build(kind, fresh(kind, config.get("init_args") or {})).arguments


@dataclass(frozen=True)
class RunPlan:
    """The plan of a run: what it would do on each of its devices.

    Args:
        kind: class of the system.
        arguments: of its constructor, typed.
        world: number of processes.
        batch: pairs that a device takes at once.
        crop: side of the crops in pixels.
        precision: of the trainer.
        average: whether an EMA is kept.
        gpu: whether the devices are GPUs.
        strategy: its name.
        stage: of ZeRO, or 0.
        offload: whether optimizer states are on the host.
    """

    kind: type[RestorationSystem]
    arguments: dict[str, Any]
    world: int
    batch: int
    crop: int
    precision: str
    average: bool
    gpu: bool
    strategy: str
    stage: int
    offload: bool
    known: dict[tuple[bool, int], Step] = field(default_factory=dict)  # steps simulated so far

    @property
    def can_checkpoint(self) -> bool:
        """Returns whether the system can recompute activations in the backward pass."""
        return "gradient_checkpointing" in self.arguments

    @property
    def checkpointing(self) -> bool:
        return bool(self.arguments.get("gradient_checkpointing"))

    @property
    def device(self) -> str:
        return "GPU" if self.gpu else "CPU"

    def step(self, checkpointing: bool, stage: int) -> Step:
        """Returns a training step with or without gradient checkpointing."""
        own = self.arguments
        if self.can_checkpoint:
            own = own | {"gradient_checkpointing": checkpointing}
        # stages 1 and 2 differ in what is kept, not in the step
        key = self.can_checkpoint and checkpointing, 1 if stage == 2 else stage
        if key not in self.known:
            self.known[key] = simulate(
                self.kind,
                own,
                batch=self.batch,
                crop=self.crop,
                precision=self.precision,
                stage=stage,
                gpu=self.gpu,
            )
        return self.known[key]

    def kept(self, sizes: Sizes, stage: int, offload: bool) -> Static:
        """Returns what the strategy of this stage keeps for as long as training lasts."""
        return static(
            sizes,
            stage=stage,
            offload=offload,
            world=self.world,
            precision=self.precision,
            average=self.average,
        )


def plan_of(config: dict[str, Any]) -> RunPlan:
    """Returns the plan of a configuration of `fit`; ValueError for what cannot be estimated."""
    kind, arguments = typed(config["model"])
    trainer, data = config["trainer"], config["data"]["init_args"]
    missing = {"batch_size", "crop"} - data.keys()
    if missing:
        raise ValueError(
            f"--dry-run: data {config['data']['class_path']} has no"
            f" {' and no '.join(sorted(missing))}, which the estimate needs; use a data module of"
            " lit_mimdit.data"
        )
    world, callbacks = processes(trainer["devices"], trainer["num_nodes"]), trainer["callbacks"]
    name, stage, offload = stage_of(trainer["strategy"])
    return RunPlan(
        kind,
        arguments,
        world,
        pairs_at_once(
            data["batch_size"], data.get("micro_batch"), world, trainer["accumulate_grad_batches"]
        ),
        data["crop"],
        str(trainer["precision"] or "32-true"),
        any(callback["class_path"].endswith(".EMA") for callback in callbacks or []),
        on_gpu(trainer["accelerator"], trainer["strategy"]),
        name,
        stage,
        offload,
    )


def dry_run(config: dict[str, Any]) -> None:
    """Print the table of modules, the parameters, and the estimate of memory for each device.

    Args:
        config: the whole configuration of `fit`, as plain values.
    """
    plan = plan_of(config)
    system = meta_system(plan.kind, plan.arguments)
    sizes = sizes_of(system)
    print(f"{system.size_source}; neither weights nor data were read\n")
    print(ModelSummary(system, max_depth=3))
    million = sizes.trained / 1e6, sizes.frozen / 1e6
    print(f"\ntrained {million[0]:,.2f} M, frozen {million[1]:,.2f} M parameters")
    idle = plan.kind.IDLE.get(sizes.trained)
    if idle is not None:
        print(
            f"The authors' network has {sizes.trained + idle:,}, of which {idle:,} act on nothing;"
            " those are not built"
        )
    if not plan.kind.TRAINABLE:
        print(f"{plan.kind.__name__} is not trained, so no step is estimated")
        return
    print()
    print(
        f"GiB on each {plan.device} ({plan.world} of them), {plan.batch} pairs of {plan.crop} px at"
        f" once, {plan.strategy}, {plan.precision}"
    )
    steps = {on: plan.step(on, plan.stage) for on in (True, False)}
    kept = plan.kept(sizes, plan.stage, plan.offload)
    print("\n".join(table(kept, steps, plan.checkpointing)))
    if not plan.can_checkpoint:
        print(f"{plan.kind.__name__} has no gradient checkpointing: both columns are the same")
    print("\n".join(_strategies(plan, sizes)))
    print("\n".join(cards(plan)))
    print("\nNot in it: the context of CUDA, the allocator's gaps, and the pictures of validation.")


def _strategies(plan: RunPlan, sizes: Sizes) -> list[str]:
    """Lines that compare the memory of all strategies."""
    several = "s" if plan.world > 1 else ""
    lines = [
        f"\nof all strategies, with {plan.world} {plan.device}{several} and gradient checkpointing"
        " as configured:"
    ]
    for name, (stage, offload) in STRATEGIES.items():
        kept = plan.kept(sizes, stage, offload)
        total = (kept.total + plan.step(plan.checkpointing, stage).activations) / GIB
        host = f", and {kept.host / GIB:.2f} on the host" if kept.host else ""
        mark = "   <- this run" if name == plan.strategy else ""
        lines.append(f"  {name:16}{total:8.2f}{host}{mark}")
    return lines


def table(kept: Static, steps: dict[bool, Step], configured: bool) -> list[str]:
    """Returns lines of the estimate: a column with gradient checkpointing, one without."""
    lines = [f"  {'gradient checkpointing':28}{'on':>8}{'off':>8}"]
    for part in fields(Static):
        if part.name in ROWS:
            size = f"{getattr(kept, part.name) / GIB:8.2f}"
            lines.append(f"  {ROWS[part.name]:28}{size}{size}")
    lines.append(
        f"  {'activations, at the peak':28}"
        + "".join(f"{steps[on].activations / GIB:8.2f}" for on in (True, False))
    )
    totals = "".join(f"{(kept.total + steps[on].activations) / GIB:8.2f}" for on in (True, False))
    lines.append(f"  {'sum':28}{totals}   (this run: {'on' if configured else 'off'})")
    if kept.host:
        size = f"{kept.host / GIB:8.2f}"
        lines.append(f"  {'on the host beside it':28}{size}{size}")
    lines.append(
        f"  {'TFLOP a step':28}" + "".join(f"{steps[on].flops / 1e12:8.2f}" for on in (True, False))
    )
    return lines
