"""Counts the training samples that could not be read, where one looks while it trains."""

from typing import Any

import lightning as L


class BrokenSamples(L.Callback):
    """Logs data/broken, the training samples that could not be read so far, and shows it on the
    progress bar.

    The data module lists them in quarantine.csv and stops a run that has too many.
    """

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        quarantine = getattr(trainer.datamodule, "quarantine", None)
        if quarantine is not None:
            pl_module.log("data/broken", float(quarantine.lost), prog_bar=True, batch_size=1)
