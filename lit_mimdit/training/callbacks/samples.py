"""Photographs are shown before and after restoration.

At every validation they are the same photographs with the same noise.
"""

from typing import Any

import lightning as L
import numpy as np
import torch
from torchvision.utils import make_grid

from lit_mimdit.training.callbacks.loggers import show_picture


class SamplePictures(L.Callback):
    """One row LQ | restored | GT for each of the first validation images.

    Args:
        count: number of rows, from as many validation batches as they take.
    """

    def __init__(self, count: int = 8) -> None:
        if count < 1:
            raise ValueError(f"SamplePictures: count is {count}; it must be at least 1")
        self.count = count
        self.rows: list[torch.Tensor] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.rows = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for lq, restored, gt in zip(batch["lq"].cpu(), outputs["restored"], batch["gt"].cpu()):
            if len(self.rows) < self.count:
                self.rows.append(torch.cat([lq, restored, gt], dim=-1))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.rows or trainer.sanity_checking:
            return
        same = [row for row in self.rows if row.shape == self.rows[0].shape]
        grid = make_grid(same, nrow=1, padding=4).permute(1, 2, 0).float().numpy()
        pixels = (grid * 255.0).clip(0, 255).astype(np.uint8)
        show_picture(trainer, "samples/lq_restored_gt", pixels, trainer.global_step)
