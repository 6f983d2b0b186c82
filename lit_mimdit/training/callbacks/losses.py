"""Shows where along t the loss is."""

from itertools import pairwise
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_mimdit.training.callbacks.loggers import displays


def mean_by_bin(values: Tensor, t: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Returns the sum of `values` (B,) and number of samples in each of `bins` equal bins of t in
    [0, 1], both (bins,).
    """
    index = (t * bins).long().clamp(max=bins - 1)
    return (
        torch.zeros(bins).index_add_(0, index, values),
        torch.bincount(index, minlength=bins).float(),
    )


class LossByTime(L.Callback):
    """Logs train/loss_t0.0-0.1, ...: means over the steps since the last time.

    Args:
        bins: number of equal bins of `t`.
        every_n_steps: training steps between two points.
    """

    def __init__(self, bins: int = 10, every_n_steps: int = 50) -> None:
        if bins < 1 or every_n_steps < 1:
            raise ValueError(
                f"LossByTime: bins is {bins} and every_n_steps {every_n_steps}; both must be at"
                " least 1"
            )
        self.bins, self.every_n_steps = bins, every_n_steps
        self.total, self.count = torch.zeros(bins), torch.zeros(bins)
        self._logged = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._logged = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if outputs["t"] is None:
            raise ValueError(
                f"trainer.callbacks holds LossByTime, but {type(pl_module).__name__} has no times:"
                " take it out"
            )
        total, count = mean_by_bin(
            outputs["per_sample"].float().cpu(), outputs["t"].float().cpu(), self.bins
        )
        self.total, self.count = self.total + total, self.count + count
        due = (
            trainer.global_step % self.every_n_steps == 0 and trainer.global_step != self._logged
        )  # once a step when accumulating
        if due:
            self._logged = trainer.global_step
            means = self.total / self.count
            edges = [f"{b / self.bins:.{len(str(self.bins - 1))}f}" for b in range(self.bins + 1)]
            names = [f"train/loss_t{low}-{high}" for low, high in pairwise(edges)]
            known = {n: m for n, m, c in zip(names, means.tolist(), self.count.tolist()) if c}
            for display in displays(trainer):
                display.curves(known, trainer.global_step)
            self.total, self.count = torch.zeros(self.bins), torch.zeros(self.bins)
