"""Images a second."""

import time
from collections import deque
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Logs train/images_per_s over all processes, averaged over the last steps; shown on the
    progress bar.

    Args:
        window: number of steps averaged over.
    """

    def __init__(self, window: int = 20) -> None:
        if window < 1:
            raise ValueError(f"Throughput: window is {window}; it must be at least 1")
        self.ends: deque[tuple[float, int]] = deque(maxlen=window + 1)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.ends.clear()  # validation between two epochs is not training time

    on_validation_end = on_train_epoch_start

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        images = len(batch["id"]) * trainer.world_size
        self.ends.append((time.perf_counter(), images))
        if len(self.ends) > 1:
            seconds = self.ends[-1][0] - self.ends[0][0]
            rate = sum(count for _, count in list(self.ends)[1:]) / seconds
            pl_module.log("train/images_per_s", rate, prog_bar=True, batch_size=len(batch["id"]))
