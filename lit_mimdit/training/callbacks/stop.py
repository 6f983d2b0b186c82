"""Ctrl-C ends a run cleanly: the step is finished, a checkpoint written, and the same command with --ckpt_path last goes on."""

import signal
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info


class GracefulStop(L.Callback):
    """On SIGINT: finish the step, save last.ckpt through the run's ModelCheckpoint, stop. A second SIGINT stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        rank_zero_info("\nStopping after this step (Ctrl-C again stops at once, without a checkpoint).")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._previous = signal.signal(signal.SIGINT, self._handle)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.strategy.reduce_boolean_decision(self.requested, all=False) and not trainer.should_stop:
            trainer.should_stop = True
            folder = next((c.dirpath for c in trainer.callbacks if isinstance(c, ModelCheckpoint) and c.dirpath), trainer.default_root_dir)
            path = f"{folder}/last.ckpt"
            trainer.save_checkpoint(path)
            rank_zero_info(f"Saved {path} at step {trainer.global_step}; the same command with `--ckpt_path {path}` goes on from there.")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
