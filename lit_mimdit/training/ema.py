"""Exponential moving average of the trained parameters, and of nothing else."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_mimdit.training.strategies import ZeRO

SHARDED = "average"  # key of the average among the states that ZeRO shards


class EMA(L.Callback):
    """ema = decay * ema + (1 - decay) * parameter after every optimizer step; validation, test and
    predict use the average.

    The decay of update n, counted from 0, is `min(decay, (1 + n) / (10 + n))`. So early averages do
    not remember the start. With decay 0.999 the average spans about 1,000 steps. Under ZeRO each
    process averages its part of the 32-bit parameters, without communication; the parts are put
    together for validation and checkpoints.

    Args:
        decay: weight of the old average at each update, in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay is {decay}: it must lie in [0, 1)")
        self.decay, self.updates = decay, 0
        self.average: dict[
            str, Tensor
        ] = {}  # whole; while ZeRO trains, as of the last time that they were put together
        self.backup: dict[str, Tensor] = {}
        self._zero: ZeRO | None = None
        self._names: dict[str, torch.nn.Parameter] = {}
        self._last_step = -1

    @staticmethod
    def _trained(module: L.LightningModule) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in module.named_parameters() if p.requires_grad}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trained = self._trained(pl_module)
        self._zero = trainer.strategy if isinstance(trainer.strategy, ZeRO) else None
        self._names = trained
        if self.average and self.average.keys() != trained.keys():
            raise ValueError(
                "the EMA in the checkpoint averages other parameters:"
                f" {sorted(self.average.keys() ^ trained.keys())[:5]}; train what that run trained,"
                " or start anew with model.init_args.init"
            )
        if self._zero is not None:
            self._zero.add_state(SHARDED)
            for name, average in self.average.items():
                self._zero.set_full(trained[name], average, SHARDED)
            self.average = {}
        elif not self.average:
            self.average = {name: p.detach().clone() for name, p in trained.items()}
        else:
            self.average = {name: self.average[name].to(p.device) for name, p in trained.items()}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_step = (
            trainer.global_step
        )  # a resumed run's step count is restored only after on_fit_start

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self._last_step:  # gradient accumulation: no optimizer step yet
            return
        self._last_step = trainer.global_step
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        if self._zero is not None:
            self._zero.lerp_state(SHARDED, 1.0 - decay)
            return
        trained = self._trained(pl_module)
        torch._foreach_lerp_(
            list(self.average.values()),
            [trained[name].detach() for name in self.average],
            1.0 - decay,
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The strategy goes, the average stays: for the evaluation after the run."""
        if self._zero is not None:
            self.average, self._zero = (
                self._zero.collect(self._names, SHARDED, everywhere=True),
                None,
            )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the average to a system that writes a file of its own when `fit` ends."""
        if getattr(pl_module, "ENDS_AVERAGED", False):
            self.copy_to(pl_module)

    @torch.no_grad()
    def copy_to(self, module: L.LightningModule) -> None:
        """Overwrite the trained parameters of `module` with their average."""
        trained = self._trained(module)
        averages = (
            self._zero.full(trained.values(), SHARDED)
            if self._zero is not None
            else (self.average[name] for name in trained)
        )
        for parameter, average in zip(trained.values(), averages, strict=True):
            parameter.copy_(average)

    def _swap_in(self, module: L.LightningModule) -> None:
        if (self.average or self._zero is not None) and not self.backup:
            self.backup = {name: p.detach().clone() for name, p in self._trained(module).items()}
            self.copy_to(module)

    @torch.no_grad()
    def _swap_out(self, module: L.LightningModule) -> None:
        for name, parameter in self._trained(module).items():
            if self.backup:
                parameter.copy_(self.backup[name])
        self.backup = {}

    # the epoch's start, not the evaluation's: the strategy has whole parameters only then
    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_in(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_out(pl_module)

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._swap_out(pl_module)

    def state_dict(self) -> dict[str, Any]:
        average = (
            self._zero.collect(self._names, SHARDED) if self._zero is not None else self.average
        )
        return {"average": average, "updates": self.updates, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average, self.updates = state["average"], state["updates"]
