"""The trainer of the command line: Lightning's, with exact loops, and each state written once."""

import os
from itertools import chain, count
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.connectors.logger_connector import _LoggerConnector
from lightning.pytorch.trainer.states import TrainerFn

from lit_mimdit.training.loops import EpochLoop, FitLoop, position_in


class StepLogs(_LoggerConnector):
    """Logs once an optimizer step: with its last batch, if it accumulates several."""

    @property
    def should_update_logs(self) -> bool:
        trainer = self.trainer
        unfinished = trainer.training and trainer.fit_loop._should_accumulate()
        return super().should_update_logs and not unfinished


class Trainer(L.Trainer):
    """Lightning's Trainer for training that can be cut anywhere.

    A resumed run ends as the uninterrupted one, whatever else changes between the two
    (loops.py). Intervals count optimizer steps. A state that is already in a file is not written
    again: a second file of it is a link to the first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = self.fit_loop
        loop = FitLoop(self, min_epochs=known.min_epochs, max_epochs=known.max_epochs)
        loop.epoch_loop = EpochLoop(
            self, min_steps=known.epoch_loop.min_steps, max_steps=known.epoch_loop.max_steps
        )
        self.fit_loop = loop
        self._logger_connector = StepLogs(self)
        self._written: tuple[Any, str] | None = None  # the newest state, and a file that holds it

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Optimizer steps of the whole run, with those in front of a cut; inf if it has no end."""
        lightning = super().estimated_stepping_batches  # sets the loader up if it has to
        position, step = self.fit_loop.begin, self.global_step
        if position is None:
            loops = self._checkpoint_connector._loaded_checkpoint.get("loops")
            if loops is not None and self.state.fn == TrainerFn.FITTING:  # not restored yet
                state = loops["fit_loop"]
                position = position_in(state)
                optimizer = state["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
                step = optimizer["step"]["total"]["completed"]
        elif self.fit_loop.begun_at is not None:
            step = self.fit_loop.begun_at
        total = self.fit_loop.total_steps(position, step)
        if total == float("inf"):
            return lightning
        return min(total, self.max_steps) if self.max_steps != -1 else total

    def _state(self, weights_only: bool | None) -> tuple[Any, ...]:
        """Returns what tells two states of a run apart, without looking at tensors."""
        keepers = [
            (c.best_model_path, str(c.best_model_score), tuple(c.best_k_models))
            for c in self.checkpoint_callbacks
            if isinstance(c, ModelCheckpoint)
        ]
        validated = self.fit_loop.epoch_loop.val_loop.batch_progress.total.completed
        return self.global_step, validated, bool(weights_only), keepers

    def save_checkpoint(
        self,
        filepath: str | Path,
        weights_only: bool | None = None,
        storage_options: Any = None,
    ) -> None:
        """Writes the run's state to `filepath`, or links it to the file that holds it already."""
        state, path = self._state(weights_only), os.fspath(filepath)
        with self.profiler.profile("save_checkpoint"):
            if self._written is not None and self._written[0] == state and self._link(path):
                return
            self._name_last()
            checkpoint = self._checkpoint_connector.dump_checkpoint(weights_only)
            checkpoint["epoch"] = self.fit_loop.epoch_of_last_step
            self.strategy.save_checkpoint(checkpoint, path, storage_options=storage_options)
            self.strategy.barrier("Trainer.save_checkpoint")
        self._written = (state, path)

    def _name_last(self) -> None:
        """Tells each ModelCheckpoint the name of its `last.ckpt` before a state is written.

        Every file of the run then knows that name, and a resumed run writes on under it. Lightning
        would take the file for another run's, and begin a `last-v1.ckpt`.
        """
        for keeper in self.checkpoint_callbacks:
            own = isinstance(keeper, ModelCheckpoint) and keeper.save_last and keeper.dirpath
            if own and not keeper.last_model_path:
                names = chain(["last"], (f"last-v{version}" for version in count(1)))
                paths = (os.path.join(keeper.dirpath, f"{name}.ckpt") for name in names)
                free = (path for path in paths if not self.strategy.broadcast(Path(path).exists()))
                keeper.last_model_path = next(free)

    def _link(self, path: str) -> bool:
        """Makes `path` another name of the newest state's file.

        It returns false on every process if it cannot. Then the file is gone or was never finished,
        or the disk knows no links.
        """
        done = False
        if self.is_global_zero and getattr(self.strategy.checkpoint_io, "failure", None) is None:
            held, wanted = Path(self._written[1]), Path(path)
            done = held.is_file() and wanted.exists() and held.samefile(wanted)
            if held.is_file() and not done:
                part = wanted.with_name(f".{wanted.name}.part")
                try:
                    part.unlink(missing_ok=True)
                    part.hardlink_to(held)
                    part.replace(wanted)
                    done = True
                except OSError:
                    done = False
        return self.strategy.broadcast(done)
