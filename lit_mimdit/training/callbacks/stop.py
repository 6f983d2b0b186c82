"""A run ends with a checkpoint of its last step, at its end and at Ctrl-C; the same command with --ckpt_path last goes on."""

import signal
from itertools import chain, count
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from lit_mimdit.training.ema import EMA


class GracefulStop(L.Callback):
    """Saves the run's last step as last.ckpt, in the folder of its ModelCheckpoint. Stands below EMA in the list of callbacks.

    On SIGINT: finish the step, save, stop. A second SIGINT stops at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None
        self._steps = float("inf")
        self._saved = False
        self._kept: dict[ModelCheckpoint, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        rank_zero_info("\nStopping after this step (Ctrl-C again stops at once, without a checkpoint).")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if any(isinstance(callback, EMA) for callback in trainer.callbacks[trainer.callbacks.index(self) :]):
            raise ValueError(
                "trainer.callbacks: GracefulStop saves the average of the step before unless it stands below EMA; move it down"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._previous = signal.signal(signal.SIGINT, self._handle)
        self._steps, self._saved = trainer.estimated_stepping_batches, False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._saved or trainer.fast_dev_run:
            return
        if trainer.strategy.reduce_boolean_decision(self.requested, all=False):
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # Lightning would validate before it stops
            path = self._save(trainer)
            rank_zero_info(f"Saved {path} at step {trainer.global_step}; the same command with `--ckpt_path {path}` goes on from there.")
        elif trainer.checkpoint_callbacks and (trainer.should_stop or trainer.global_step >= self._steps):
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> str:
        """Saves now, in the step: what is saved after the loop has ended does not resume in the middle of an epoch."""
        keeper = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath), None)
        folder, own = (keeper.dirpath, keeper.last_model_path) if keeper is not None else (trainer.default_root_dir, "")
        names = chain([f"{folder}/last.ckpt"], (f"{folder}/last-v{version}.ckpt" for version in count(1)))
        # another run's file is left alone, as ModelCheckpoint does
        path = next(name for name in names if name == own or not trainer.strategy.broadcast(Path(name).exists()))
        if keeper is not None:
            keeper.last_model_path = path
        trainer.save_checkpoint(path)
        self._saved = True
        return path

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for keeper, save_last in self._kept.items():
            keeper.save_last = save_last

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps ModelCheckpoint from saving another last.ckpt, now that the loop has ended (it would even after fast_dev_run)."""
        self._restore()
        if self._saved or trainer.fast_dev_run:
            self._kept = {c: c.save_last for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)}
            for keeper in self._kept:
                keeper.save_last = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
