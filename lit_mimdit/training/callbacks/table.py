"""The table at the end: what was degraded, what came back, and what the VAE alone would allow."""

from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_info


class ResultTable(L.Callback):
    """Prints the scores by degradation after validate and test, and writes every image's to a CSV in the run's folder."""

    def _show(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not trainer.is_global_zero or not pl_module.table.rows:
            return
        gain, spread = pl_module.table.interval("restored", "degraded")
        print(pl_module.table.render(f"{stage}: PSNR (dB) and SSIM of {len(pl_module.table.rows)} images, RGB, means"))
        print(f"restored - degraded: {gain:+.2f} dB +- {spread:.2f} (95% interval of the mean over images)")
        if trainer.log_dir is not None and not trainer.fast_dev_run:
            path = Path(trainer.log_dir) / f"{stage}_scores.csv"
            pl_module.table.write_csv(path)
            rank_zero_info(f"every image: {path}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "validate":
            self._show(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._show(trainer, pl_module, "test")
