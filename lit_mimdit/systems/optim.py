"""Optimizer and learning-rate schedule from one typed configuration."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.callbacks import Timer
from torch import nn

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig


@dataclass
class OptimizerConfig:
    """Adam and its schedule.

    Args:
        lr: learning rate of the optimizer at its highest.
        name: `adam`, the paper's, or `adamw`, which decouples the weight decay.
        betas: decay rates of the first and second moment.
        weight_decay: L2 penalty of `adam`, or decoupled decay of `adamw`.
        decay_vectors: whether it also acts on biases, norms and other parameters of one axis or
            none.
        eps: small number added to the root of the second moment.
        warmup_steps: optimizer steps over which the rate rises linearly from 0.
        schedule: how the rate changes after the warm-up. `constant` is the paper's fixed rate.
            `cosine` falls to 0 at the trainer's last step, or at the end of its budget of time.
            `published` is the schedule of the system's publication, by epoch.
        lr_scale: factors of the rate, such as `{zero_linear: 10, router: 1}`. Each applies to every
            parameter whose dotted name has the key as one of its parts. A key that matches nothing
            is an error.
    """

    lr: float
    name: Literal["adam", "adamw"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decay_vectors: bool = True
    eps: float = 1e-8
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine", "published"] = "constant"
    lr_scale: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"optimizer.lr is {self.lr}: it must be positive")
        if self.eps <= 0:
            raise ValueError(f"optimizer.eps is {self.eps}: it must be positive")
        if self.warmup_steps < 0:
            raise ValueError(f"optimizer.warmup_steps is {self.warmup_steps}: it must be 0 or more")
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"optimizer.betas is {self.betas}: both must lie in [0, 1)")


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig
) -> list[dict[str, Any]]:
    """Returns the trainable parameters grouped by their learning rate and weight decay.

    Each group carries its `name` and its `param_names`.
    """
    groups: dict[str, dict[str, Any]] = {}
    scaled: set[str] = set()
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        key = next((k for k in config.lr_scale if k in name.split(".")), "rest")
        scaled.add(key)
        rate = config.lr * config.lr_scale.get(key, 1.0)
        new: dict[str, Any] = {"params": [], "lr": rate, "name": key, "param_names": []}
        if not config.decay_vectors and parameter.ndim < 2:
            new |= {"name": f"{key}, no decay", "weight_decay": 0.0}
        group = groups.setdefault(new["name"], new)
        group["params"].append(parameter)
        group["param_names"].append(name)
    unused = [k for k in config.lr_scale if k not in scaled]
    if unused:
        raise ValueError(
            f"optimizer.lr_scale names {unused}, which no trained parameter has as a part of its"
            f" name; leave it out, or name such a part, as in {{zero_linear: 10}}"
        )
    if not groups:
        raise ValueError(
            "nothing to train: no parameter requires a gradient; give model a part that is"
            " trained, or use `test`"
        )
    return list(groups.values())


def lr_factor(
    step: int,
    *,
    warmup_steps: int,
    schedule: str,
    total_steps: float,
    share_of_time: float | None = None,
) -> float:
    """Returns the multiplier of the learning rate at an optimizer step (counted from 0).

        (step + 1) / warmup_steps     in the warm-up
        1 or (1 + cos(pi u)) / 2      after it

    u is the share of the steps after the warm-up. In a run that a budget of time may end, u is
    `share_of_time`, in [0, 1], where that is larger.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    progress = max(progress, share_of_time or 0.0)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def configure_for(
    trainer: Any,
    named: Iterable[tuple[str, nn.Parameter]],
    config: OptimizerConfig,
    **published: Any,
) -> "OptimizerLRSchedulerConfig":
    """Returns what `configure` makes for a trainer, whose steps or budget of time are the end.

    `published` are `configure`'s arguments for the schedule of this name.
    """
    steps = trainer.estimated_stepping_batches
    return configure(named, config, steps, share_of_time=share_of_time(trainer), **published)


def share_of_time(trainer: Any) -> Callable[[], float] | None:
    """Returns what tells how much of a run's budget of time is used up, from 0 to 1.

    The budget is that of the callback TrainingTime, or `trainer.max_time`. None: the run has none.
    All processes of a run are told what the clock of the first says, so that their rates are equal.
    """
    shared = trainer.strategy.broadcast
    for callback in trainer.callbacks:
        if getattr(callback, "share_of_budget", None) is not None:
            return lambda: shared(callback.share_of_budget)
    for callback in trainer.callbacks:
        if isinstance(callback, Timer) and callback.time_remaining() is not None:
            return lambda: shared(_used(callback))
    return None


def _used(timer: Timer) -> float:
    used, left = timer.time_elapsed(), timer.time_remaining()
    assert left is not None, "it has an end"
    return used / max(used, used + left, 1e-9)


def saved_names(groups: list[dict[str, Any]], saved: list[dict[str, Any]]) -> list[str]:
    """Returns the names of the parameters in a checkpoint's groups `saved`, in their order.

    Checkpoints of before they held names tell them by the groups' own names. `groups` are those of
    the optimizer that exists, with the same parameters in perhaps other groups.
    """
    if all("param_names" in group for group in saved):
        return [name for group in saved for name in group["param_names"]]
    keys = [group.get("name", "rest") for group in saved]
    names: dict[str, list[str]] = {key: [] for key in keys}
    for name in parameter_order(groups):
        key = next((k for k in keys if k in name.split(".")), "rest")
        names.setdefault(key, []).append(name)
    return [name for key in keys for name in names[key]]


def parameter_order(groups: list[dict[str, Any]]) -> list[str]:
    """Returns the names of all parameters, group by group."""
    return [name for group in groups for name in group["param_names"]]


def moments_by_name(groups: list[dict[str, Any]], saved: dict[str, Any]) -> dict[int, Any]:
    """Returns the state of a checkpoint's optimizer for an optimizer whose groups are `groups`.

    Parameters are told apart by name, so they may be in other groups than they were.

    Args:
        groups: of the optimizer that exists.
        saved: state dict of the optimizer in the checkpoint.

    Returns:
        The state (step, exp_avg, exp_avg_sq) of each parameter, by its place in `groups`.

    Raises:
        ValueError: the checkpoint's optimizer had other parameters.
    """
    old, new = saved_names(groups, saved["param_groups"]), parameter_order(groups)
    count = sum(len(group["params"]) for group in saved["param_groups"])
    if sorted(old) != sorted(new) or count != len(new):
        raise ValueError(
            f"the checkpoint's optimizer has {count} parameters, this run's has {len(new)}, and"
            " they are not the same: train what that run trained, or start anew with"
            " model.init_args.init"
        )
    place = {name: index for index, name in enumerate(old)}
    indices = [place[name] for name in new]
    state = saved["state"]
    return {here: state[there] for here, there in enumerate(indices) if there in state}


def keep_configured_values(
    optimizer: torch.optim.Optimizer, saved: dict[str, Any]
) -> dict[str, Any]:
    """Takes the moments from a checkpoint, and every value (learning rate, betas, weight decay and
    the rest) from the configuration. A pre-hook of `Optimizer.load_state_dict`.
    """
    groups, first = [], 0
    for group in optimizer.param_groups:
        indices = list(range(first, first + len(group["params"])))
        groups.append(group | {"params": indices})
        first += len(indices)
    return {"state": moments_by_name(optimizer.param_groups, saved), "param_groups": groups}


class Schedule(torch.optim.lr_scheduler.LambdaLR):
    """A schedule that takes from a checkpoint how many steps were made, and nothing else: the
    learning rates are those of the configuration.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["_step_count"]
        self._last_lr = [
            rate * factor(self.last_epoch)
            for rate, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def configure(
    named: Iterable[tuple[str, nn.Parameter]],
    config: OptimizerConfig,
    total_steps: float,
    published_rate: Callable[[int], float] | None = None,
    steps_per_epoch: int | None = None,
    share_of_time: Callable[[], float] | None = None,
) -> "OptimizerLRSchedulerConfig":
    """Returns what LightningModule.configure_optimizers returns: an optimizer and a schedule.

    The schedule advances every step. When a run is resumed, both keep the values of `config`; the
    moments and the number of steps come from the checkpoint.

    Args:
        named: parameters that may be trained, by name.
        config: see OptimizerConfig.
        total_steps: of the whole run; infinite if it has no end.
        published_rate: factor of the rate in an epoch, counted from 0; for schedule "published".
        steps_per_epoch: optimizer steps of an epoch; for schedule "published".
        share_of_time: tells how much of the run's budget of time is used up, from 0 to 1, see the
            function of this name. None for a run that ends at a step.

    Raises:
        ValueError: the schedule needs an end or a length of epochs that the run does not have.
    """
    endless = not math.isfinite(total_steps) and share_of_time is None
    if config.schedule == "cosine" and endless:
        raise ValueError(
            "optimizer.schedule is cosine, but the run has no end: set trainer.max_steps or"
            " trainer.max_epochs or trainer.max_time"
        )
    if config.schedule == "published":
        if published_rate is None or not steps_per_epoch:
            raise ValueError(
                "optimizer.schedule is published, but an epoch has no length here; choose constant"
                " or cosine, or data whose epochs end"
            )
        published_rate(0)  # ValueError if nothing is published, before the first step

    falls_by_time = config.schedule == "cosine" and share_of_time is not None

    @lru_cache(maxsize=1)  # every group asks, and the answer travels to all processes
    def used(step: int) -> float | None:
        return share_of_time() if falls_by_time and step >= config.warmup_steps else None

    def factor(step: int) -> float:
        if config.schedule == "published":
            assert published_rate is not None and steps_per_epoch, "checked above"
            return published_rate(step // steps_per_epoch)
        return lr_factor(
            step,
            warmup_steps=config.warmup_steps,
            schedule=config.schedule,
            total_steps=total_steps,
            share_of_time=used(step),
        )

    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    parameters = list(named)
    # one pass over memory in the place of a dozen, a third of the time; GPUs have fast ones anyway
    on_cpu = all(parameter.device.type == "cpu" for _, parameter in parameters)
    optimizer = kind(
        parameter_groups(parameters, config),
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        eps=config.eps,
        fused=True if on_cpu else None,
    )
    # a fused optimizer can undo a loss's scale, for which Lightning refuses to clip gradients; a
    # CPU trains without such a scale
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    optimizer.register_load_state_dict_pre_hook(keep_configured_values)
    schedule = Schedule(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
