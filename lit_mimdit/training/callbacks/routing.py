"""The Inter-MoE weights in TensorBoard."""

from typing import Any

import lightning as L
import torch

from lit_mimdit.models.mim import MiMRouting
from lit_mimdit.training.callbacks.tensorboard import writer_of


class RoutingHistograms(L.Callback):
    """For every block and group, a histogram of the Inter-MoE weights of the images seen since the last one.

    Tags are inter_moe_block_00/0_spatial, ...: they sort by block, then by group.

    Args:
        every_n_steps: training steps between two histograms.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise ValueError(f"RoutingHistograms: every_n_steps is {every_n_steps}; it must be at least 1")
        self.every_n_steps = every_n_steps
        self.seen: list[torch.Tensor] = []
        self._written = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._written = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        routing: tuple[MiMRouting, ...] = outputs["routing"]
        self.seen.append(torch.stack([mim.inter.weights for mim in routing]))  # (L, B, G)
        if trainer.global_step % self.every_n_steps or trainer.global_step == self._written:  # once a step when accumulating
            return
        self._written = trainer.global_step
        weights, self.seen = torch.cat(self.seen, dim=1).float().cpu(), []
        writer = writer_of(trainer)
        if writer is None:
            return
        for block, of_block in enumerate(weights):
            for group, kind in enumerate(pl_module.branch_config.groups):
                writer.add_histogram(f"inter_moe_block_{block:02d}/{group}_{kind}", of_block[:, group], trainer.global_step)
