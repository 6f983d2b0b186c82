"""Optimizer and learning-rate schedule from one typed configuration."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn


@dataclass
class OptimizerConfig:
    """Adam and its schedule.

    Args:
        lr: learning rate of the optimizer at its highest.
        name: "adam" (the paper's) or "adamw" (decoupled weight decay).
        betas: decay rates of the first and second moment.
        weight_decay: L2 penalty (adam) or decoupled decay (adamw).
        warmup_steps: optimizer steps over which the rate rises linearly from 0.
        schedule: "constant" (the paper's fixed rate) or "cosine" to 0 at the trainer's last step.
        lr_scale: multiplies the rate of every parameter whose dotted name contains the key as one
            of its parts, e.g. {zero_linear: 10, router: 1}. A key that matches nothing is an error.
    """

    lr: float
    name: Literal["adam", "adamw"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    lr_scale: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"optimizer.lr is {self.lr}: it must be positive")
        if self.warmup_steps < 0:
            raise ValueError(f"optimizer.warmup_steps is {self.warmup_steps}: it must be 0 or more")
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"optimizer.betas is {self.betas}: both must lie in [0, 1)")


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig
) -> list[dict[str, Any]]:
    """Trainable parameters grouped by their learning rate; each group carries its `name`."""
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        key = next((k for k in config.lr_scale if k in name.split(".")), "rest")
        groups.setdefault(
            key, {"params": [], "lr": config.lr * config.lr_scale.get(key, 1.0), "name": key}
        )["params"].append(parameter)
    unused = [k for k in config.lr_scale if k not in groups]
    if unused:
        raise ValueError(
            f"optimizer.lr_scale names {unused}, which no trained parameter has as a part of its"
            " name"
        )
    if not groups:
        raise ValueError("nothing to train: no parameter requires a gradient")
    return list(groups.values())


def lr_factor(step: int, *, warmup_steps: int, schedule: str, total_steps: float) -> float:
    """Multiplier of the learning rate at an optimizer step (counted from 0).

    Linear warm-up (step + 1) / warmup_steps, then 1 or (1 + cos(pi u)) / 2, u = share of the steps
    after the warm-up.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def configure(
    named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, total_steps: float
) -> dict[str, Any]:
    """What LightningModule.configure_optimizers returns:

    the optimizer and a schedule advanced every step.
    """
    if config.schedule == "cosine" and not math.isfinite(total_steps):
        raise ValueError(
            "optimizer.schedule is cosine, but the run has no end: set trainer.max_steps or"
            " trainer.max_epochs"
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    optimizer = kind(
        parameter_groups(named, config),
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: lr_factor(
            step,
            warmup_steps=config.warmup_steps,
            schedule=config.schedule,
            total_steps=total_steps,
        ),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
