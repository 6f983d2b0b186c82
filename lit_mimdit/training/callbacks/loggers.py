"""Pictures for whatever logger a run has; what a logger cannot show is said once."""

from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

_said: set[tuple[str, str]] = set()


def show_picture(trainer: L.Trainer, tag: str, pixels: np.ndarray, step: int) -> None:
    """Shows a picture in every logger of the run, from the first process.

    TensorBoard, Weights & Biases (and whatever has its `log_image`) and MLflow can; another logger
    is named in one warning.

    Args:
        tag: group and name, such as samples/lq_restored_gt.
        pixels: (H, W, 3) uint8.
        step: optimizer steps so far.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, pixels, step, dataformats="HWC")
        elif callable(getattr(logger, "log_image", None)):
            logger.log_image(key=tag, images=[pixels], step=step)
        elif isinstance(logger, MLFlowLogger):
            file = f"{tag}/step_{step:08d}.png"
            logger.experiment.log_image(logger.run_id, pixels, artifact_file=file)
        else:
            say_once(logger, "pictures")


def say_without_tensorboard(trainer: L.Trainer, what: str) -> None:
    """Warns once for each logger of a run without TensorBoard that `what` is not shown."""
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger):
            say_once(logger, what)


def say_once(logger: Any, what: str) -> None:
    """Warns that a logger cannot show `what`; the same warning appears once in a process."""
    name = type(logger).__name__
    if (name, what) not in _said:
        _said.add((name, what))
        rank_zero_warn(
            f"{name} cannot show {what}, so they are left out; add TensorBoardLogger to"
            " trainer.logger to see them"
        )
