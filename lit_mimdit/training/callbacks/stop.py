"""A run ends with a checkpoint of its last step.

That holds at its end, at Ctrl-C and before a time limit; the same command goes on from there.
"""

import os
import signal
import threading
from itertools import chain, count
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from lit_mimdit.training.ema import EMA
from lit_mimdit.training.slurm import requeue

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class GracefulStop(L.Callback):
    """Saves the run's last step as last.ckpt, in the folder of its ModelCheckpoint. Stands below
    EMA in the list of callbacks.

    On SIGINT, which Ctrl-C sends, SIGTERM or SIGUSR1 to any process, the run finishes its step,
    saves and stops. Before that SIGUSR1 requeues the Slurm job if there is one. SIGTERM requeues it
    unless it was cancelled or preempted. A second SIGINT stops at once. Every
    validation starts with a checkpoint, so that SIGTERM and SIGUSR1 need not wait for its end.
    `validate`, `test` and `predict` have nothing to save: SIGTERM ends them at once.

    Args:
        requeue: whether the Slurm job is put back into the queue.
    """

    def __init__(self, requeue: bool = True) -> None:
        self.requeue, self.requested = requeue, False
        self._signal = 0
        self._validating = False
        self._previous: dict[int, Any] = {}
        self._saved_at, self._path = 0, ""
        self._kept: dict[ModelCheckpoint, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return  # the other signals come more than once
        self.requested, self._signal = True, number
        if self._validating and number != signal.SIGINT:
            self._leave(number)
        rank_zero_info(
            "\nStopping after this step (Ctrl-C again stops at once, without a checkpoint)."
        )

    def _leave(self, number: int) -> None:
        """Leaves in the middle of a validation, when its checkpoint is written.

        The other processes may be waiting for this one, or be done.
        """
        said = (
            requeue(number)
            if self.requeue and os.environ.get("SLURM_LOCALID", "0") == "0"
            else None
        )
        print(
            f"Stopped while validating; the checkpoint of this step is saved. {said or ''}",
            flush=True,
        )
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if any(
            isinstance(callback, EMA)
            for callback in trainer.callbacks[trainer.callbacks.index(self) :]
        ):
            raise ValueError(
                "trainer.callbacks: GracefulStop saves the average of the step before unless it"
                " stands below EMA; move it down"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # instead of Lightning's own, which save in the handler, where processes wait for each other
        # forever
        self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        self._saved_at = trainer.global_step
        self._path = self._choose_path(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _end_at_once()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _end_at_once()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.fast_dev_run or trainer.fit_loop._should_accumulate():
            return  # a step is finished first
        if not trainer.strategy.reduce_boolean_decision(self.requested, all=False):
            return
        self.requested = trainer.should_stop = True
        trainer.limit_val_batches = 0  # Lightning would validate before it stops
        for keeper in self._keepers(trainer):  # their files first: then last.ckpt knows of them
            keeper.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._save(trainer)
        self._require_saved(trainer)
        rank_zero_info(
            f"Saved {self._path} at step {trainer.global_step}; the same command with `--ckpt_path"
            f" {self._path}` goes on from there."
        )
        said = (
            requeue(self._signal)
            if self.requeue and self._signal and trainer.is_global_zero
            else None
        )
        if said:
            rank_zero_info(said)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            _end_at_once()
        if (
            trainer.training
            or trainer.state.fn != "fit"
            or trainer.sanity_checking
            or trainer.fast_dev_run
        ):
            return
        if trainer.checkpoint_callbacks:
            self._save(trainer)
            self._validating = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating = False

    @staticmethod
    def _keepers(trainer: L.Trainer) -> list[ModelCheckpoint]:
        return [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]

    def _choose_path(self, trainer: L.Trainer) -> str:
        """Returns the name of the run's last checkpoint, and tells it to the ModelCheckpoint, so
        that every file of the run names it. Another run's file is left alone.
        """
        keeper = next((c for c in self._keepers(trainer) if c.dirpath), None)
        folder, own = (
            (keeper.dirpath, keeper.last_model_path)
            if keeper is not None
            else (trainer.default_root_dir, "")
        )
        names = chain(
            [f"{folder}/last.ckpt"], (f"{folder}/last-v{version}.ckpt" for version in count(1))
        )
        path = next(
            name
            for name in names
            if name == own or not trainer.strategy.broadcast(Path(name).exists())
        )
        if keeper is not None:
            keeper.last_model_path = path
        return path

    def _save(self, trainer: L.Trainer) -> None:
        if self._saved_at != trainer.global_step:
            trainer.save_checkpoint(self._path)
            self._saved_at = trainer.global_step

    def _require_saved(self, trainer: L.Trainer) -> None:
        """A run goes on without a checkpoint that could not be written, but it does not end as if
        it were there.
        """
        failure = trainer.strategy.broadcast(
            getattr(trainer.strategy.checkpoint_io, "failure", None)
        )
        if failure:
            raise ValueError(
                f"the run's last checkpoint could not be written: {failure}; what was saved before"
                " is intact"
            )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for keeper, save_last in self._kept.items():
            keeper.save_last = save_last

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the last step, whatever ended the run. ModelCheckpoint would otherwise save another
        last.ckpt now, even after fast_dev_run.
        """
        self._restore()
        if trainer.checkpoint_callbacks and not trainer.fast_dev_run:
            self._save(trainer)
            self._require_saved(trainer)
        self._kept = {keeper: keeper.save_last for keeper in self._keepers(trainer)}
        for keeper in self._kept:
            keeper.save_last = False

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _end_at_once() -> None:
    """Let SIGTERM end this process: Lightning's own handler notes it, and goes on to the end. What
    was there before comes back with Lightning's teardown. Only a main thread has handlers.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
