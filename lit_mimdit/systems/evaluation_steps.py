"""Steps of validation, test and prediction, which are the same for every system."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_mimdit.data.image_io import ImageError
from lit_mimdit.evaluation.metrics import choose
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.evaluation.scores import ScoreTable, means
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.system_file import system_path
from lit_mimdit.systems.answers import ImageRestorer

EVAL_SEED = 1  # added to the data seed, so that evaluation never reuses a training sample's noise
SEED_RULE = "of each image: its place in the data set and data.seed"


class EvaluationSteps(L.LightningModule):
    """Scores what a system restores, and hands photographs to what writes them.

    The annotated names are the system's own; `systems/base.py` explains them.
    """

    metrics: list[str]
    versions: tuple[str, ...]
    init: str | None
    restorer: Callable[[], ImageRestorer]
    references: Callable[[dict[str, Any]], dict[str, Tensor]]
    table: ScoreTable | None  # None before the first evaluation
    summary: dict[str, Any] | None

    # -- validation and test are the same

    def _start_table(self, metrics: list[str]) -> None:
        self.table = ScoreTable(self.versions, Scorer(metrics, self.device))

    def _evaluate(self, batch: dict[str, Any]) -> dict[str, Any]:
        restored, routing = self.restorer()(
            batch["lq"], batch["seed"].cpu() + EVAL_SEED, ids=batch["id"]
        )
        assert self.table is not None, "an epoch's start makes it"
        gt = batch["gt"].cpu()
        images = {"degraded": batch["lq"].cpu(), "restored": restored} | self.references(batch)
        for row, (id, degradation) in enumerate(
            zip(batch["id"], batch["degradation"], strict=True)
        ):
            shown = {version: images[version][row].cpu() for version in self.versions}
            self.table.add(id, degradation, gt[row], shown, batch["dataset"][row])
        return {"restored": restored, "routing": routing, "degradation": batch["degradation"]}

    def _record(self) -> dict[str, Any]:
        """Returns how `test` restored, for its summary."""
        given = self.trainer.ckpt_path or self.init
        path = system_path(given) if given else None
        checkpoint = path if path is not None and path.is_file() else None
        return describe_run(self.restorer(), checkpoint, SEED_RULE)

    def _finish_table(self, stage: str) -> None:
        assert self.table is not None, "an epoch's start makes it"
        self.table.gather()
        data: Any = getattr(self.trainer, "datamodule", None)
        crop = getattr(data, "eval_crop", None)
        part = "full size" if crop is None else f"middle crop of {crop} px"
        run = self._record() if stage == "test" else None
        rule = f"{part}, RGB, 8 bits, no resize"
        self.summary = self.table.summary(image_rule=rule, restoration=run)
        for name, value in means(self.summary).items():
            self.log(
                f"{stage}/{name}", value, prog_bar=name == "psnr_restored", rank_zero_only=True
            )

    def on_validation_epoch_start(self) -> None:
        pixel = [metric.key for metric in choose(self.metrics) if metric.backend == "pixel"]
        self._start_table(pixel or ["psnr"])

    def validation_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        return self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._finish_table("val")

    def on_test_epoch_start(self) -> None:
        self._start_table(self.metrics)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        return self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self._finish_table("test")

    # -- prediction

    def on_predict_epoch_start(self) -> None:
        self.broken: list[str] = []

    def predict_step(self, batch: Any, index: int) -> Tensor | None:
        """Returns the restored image (3, H, W) of a photograph, for the WriteRestored callback.

        A broken file does not cost the others: the run ends with an error that names it.
        """
        name, photo, seed = batch
        if isinstance(photo, ImageError):
            self.broken.append(str(photo))
            return None
        ids = [name.with_suffix("").as_posix()]
        restored, _ = self.restorer()(photo.rgb[None], torch.tensor([seed]), ids=ids)
        return restored[0]

    def on_predict_epoch_end(self) -> None:
        if self.broken:
            raise ImageError(f"not restored: {'; '.join(self.broken)}")
