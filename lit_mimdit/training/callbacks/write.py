"""`predict` writes what it restores."""

from pathlib import Path
from typing import Any

import lightning as L

from lit_mimdit.data.image_io import write_photo


class WriteRestored(L.Callback):
    """Writes each photograph that `predict` restores as a PNG of the same name, in the same
    subfolder.

    Args:
        output: folder of the results. It is made if it does not exist.
    """

    def __init__(self, output: str) -> None:
        self.output = Path(output)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.output.mkdir(parents=True, exist_ok=True)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        name, photo, _ = batch
        if outputs is not None:
            (self.output / name).parent.mkdir(parents=True, exist_ok=True)
            write_photo(
                self.output / name, outputs, photo.alpha, photo.gray, photo.bits, photo.metadata
            )
