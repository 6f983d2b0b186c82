"""The table at the end: what was degraded, what came back, and what the VAE alone would allow."""

from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from lit_mimdit.data.image_io import write_photo
from lit_mimdit.evaluation.scores import render
from lit_mimdit.evaluation.summary import ALL
from lit_mimdit.inference.run_record import inter_weights

KEPT = ("degraded", "restored", "reference")


def _kept(version: str, dataset: str, id: str) -> Path:
    """Returns where an image of `test` is kept, below the run's folder."""
    return Path("test_images", version, dataset, f"{id}.png")


class ResultTable(L.Callback):
    """Prints the scores by degradation after validate and test, and writes summary, every image's
    scores and tables to the run's folder.

    Args:
        keep_images: whether the images that `test` restores, their inputs and references are
            written as PNG files into the run's folder, for `report`.
    """

    def __init__(self, keep_images: bool = False) -> None:
        self.keep_images = keep_images
        self.folder: Path | None = None  # of the run's results

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # on every process: it is a broadcast; a logger may have no folder of its own
        log_dir = trainer.log_dir or trainer.default_root_dir
        self.folder = None if trainer.fast_dev_run else Path(log_dir)

    def show(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Prints and writes the scores of the evaluation that has just ended."""
        table, summary = pl_module.table, pl_module.summary
        if not trainer.is_global_zero or not table.rows:
            return
        count = len({(row.dataset, row.id) for row in table.rows})
        what = (
            "PSNR (dB) and SSIM"
            if all(metric.backend == "pixel" for metric in table.scorer.metrics)
            else "scores"
        )
        if self.folder is not None:
            kept: dict[tuple[str, str], str] = {}
            for row, version in product(table.rows, KEPT):
                kept[row.id, version] = _kept(version, row.dataset, row.id).as_posix()
            table.write(
                self.folder,
                summary,
                kept if self.keep_images and stage == "test" else {},
                f"{stage}_",
            )
        print(
            render(
                summary,
                f"{stage}: {what} of {count} images, means; {summary['image_rule']}",
                table.versions,
            )
        )
        for group in summary["groups"]:
            gain = group["gain"].get("psnr", {"n": 0})
            if group["degradation"] == ALL and gain["n"]:
                interval = (
                    f" [{gain['low']:+.2f}, {gain['high']:+.2f}] (95% interval, bootstrap)"
                    if gain["low"] is not None
                    else ""
                )
                difference = f"restored - degraded: {gain['mean']:+.2f} dB{interval}"
                print(f"{group['dataset']} {difference}".strip())
        for failure in summary["failed"][:10]:
            print(
                f"failed: {failure['id']} {failure['version']} {failure['metric']}:"
                f" {failure['reason']}"
            )
        if self.folder is not None:
            rank_zero_info(
                f"every image: {self.folder}/{stage}_scores.csv; a page: python -m lit_mimdit"
                f" report {self.folder} -o FOLDER"
            )

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Gives the table the routers' weights of every image: `report` draws them."""
        for id, decisions in zip(batch["id"], outputs["routing"], strict=True):
            pl_module.table.routing[id] = inter_weights(decisions)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if not self.keep_images or self.folder is None:
            return
        for row, id in enumerate(batch["id"]):
            for version, images in zip(
                KEPT, (batch["lq"], outputs["restored"], batch["gt"]), strict=True
            ):
                path = self.folder / _kept(version, batch["dataset"][row], id)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_photo(path, images[row])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "validate":
            self.show(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.show(trainer, pl_module, "test")
