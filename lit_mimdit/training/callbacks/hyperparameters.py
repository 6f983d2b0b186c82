"""Hyper-parameters and the metrics they led to, one row a run."""

from typing import Any

import lightning as L

from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.systems.base import plain
from lit_mimdit.training.callbacks.loggers import Value, displays


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Value]:
    """Nested plain values as one level, {"branch.intra.experts": 4}; lists and None become text."""
    flat: dict[str, Value] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = (
                value if isinstance(value, (bool, int, float, str)) else str(value)
            )
    return flat


def settings_of(trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Value]:
    """Returns everything a comparison of runs may turn on.

    These are the settings of model, data and trainer that have plain values.
    """
    values: dict[str, Any] = plain(pl_module.arguments)
    data = vars(trainer.datamodule) if trainer.datamodule is not None else {}
    values["data"] = {
        key: str(data[key]) if key == "root" else data[key] for key in DATA if key in data
    }
    values["trainer"] = {
        "max_steps": trainer.max_steps,
        "precision": trainer.precision,
        "processes": trainer.world_size,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
    }
    return flatten(values)


DATA = ("root", "photos", "types", "batch_size", "crop", "augment", "eval_crop", "seed")


class Hyperparameters(L.Callback):
    """Writes the run's settings at its start, and names the metrics to compare runs by.

    The metrics are the training loss, and the scores of validation or test. TensorBoard shows both
    on its HParams page.
    """

    def _start(self, trainer: L.Trainer, pl_module: L.LightningModule, metrics: list[str]) -> None:
        for display in displays(trainer):
            display.settings(settings_of(trainer, pl_module), metrics)

    def _end(self, trainer: L.Trainer) -> None:
        for display in displays(trainer):
            display.finished()

    @staticmethod
    def _scores(stage: str, keys: list[str]) -> list[str]:
        return [f"{stage}/{key}_restored" for key in keys]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pixel = [key for key in pl_module.metrics if METRICS[key].backend == "pixel"] or ["psnr"]
        self._start(
            trainer, pl_module, ["train/loss", "val/psnr_degraded", *self._scores("val", pixel)]
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(
            trainer, pl_module, ["test/psnr_degraded", *self._scores("test", pl_module.metrics)]
        )

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(trainer)
