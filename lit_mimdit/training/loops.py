"""Lightning's training loops with one idea of where a run is, so that any cut can be mended.

Lightning describes a cut by a dozen counters and guesses from them what to repeat. It guesses wrong
after two cuts at the ends of epochs, or with another batch size behind a cut. Here a run that is
resumed begins at a `Position` (data/order.py): the loop starts that epoch, and the loader gives its
rest.
"""

from dataclasses import replace
from typing import Any

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.loops import _Loop
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.data_connector import _parse_num_batches
from lightning.pytorch.trainer.states import RunningStage

from lit_mimdit.data.order import Position, ResumableLoader


def position_in(state: dict[str, Any]) -> Position:
    """Returns the position that the fit loop's state in a checkpoint tells.

    The loader's own count wins. For a loader that cannot resume, the loop's counters say which
    batches were taken; such a loader starts its epoch anew.
    """
    loaders = state["state_dict"].get("combined_loader") or [{}]
    if "samples" in loaders[0]:
        keys = ("epoch", "samples", "steps")
        return Position(**{key: loaders[0][key] for key in keys if key in loaders[0]})
    epochs, batches = state["epoch_progress"]["current"], state["epoch_loop.batch_progress"]
    if epochs["processed"] == epochs["started"]:
        return Position(epochs["processed"])
    if batches["is_last_batch"]:
        return Position(epochs["processed"] + 1)
    steps = state["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    return Position(epochs["processed"], 0, steps["current"]["completed"])


def whole_steps(batches: float, accumulate: int) -> float:
    """Returns as many of `batches` as make whole optimizer steps, but one step at least (unless
    there are none)."""
    if batches in (0, float("inf")):
        return batches
    return max(batches // accumulate, 1) * accumulate


def _set_all(progress: Any, count: int) -> None:
    """Sets every counter (ready, started, processed, completed) of a tracker."""
    for name in vars(progress):
        setattr(progress, name, count)


class EpochLoop(_TrainingEpochLoop):
    """The loop over the batches of an epoch. Validation intervals count optimizer steps."""

    begun = 0  # optimizer steps of this epoch in front of the resumed run's first batch
    validated_at: int | None = None  # step whose weights this run has validated

    def reset(self) -> None:
        super().reset()
        steps, self.begun = self.begun, 0
        _set_all(self.batch_progress.current, steps * self.trainer.accumulate_grad_batches)
        optimizer = self.automatic_optimization.optim_progress.optimizer
        for progress in (self.scheduler_progress, optimizer.step, optimizer.zero_grad):
            _set_all(progress.current, steps)

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        due = self._validation_due(data_fetcher)
        if due:
            self.validated_at = self.global_step
        return due

    def _validation_due(self, data_fetcher: _DataFetcher) -> bool:
        trainer = self.trainer
        stopping = trainer.should_stop and trainer.fit_loop._can_stop_early
        by_steps = isinstance(trainer.val_check_interval, int) and not stopping
        if not by_steps or trainer._val_check_time_interval is not None:
            return super()._should_check_val_fx(data_fetcher)
        if self._should_accumulate() or not self._should_check_val_epoch():
            return False
        steps = self.global_step
        if trainer.check_val_every_n_epoch is not None:  # of this epoch
            steps = -(-self.batch_progress.current.ready // trainer.accumulate_grad_batches)
        return steps % trainer.val_check_interval == 0


class FitLoop(_FitLoop):
    """The loop over epochs. An epoch ends when the loader's samples end."""

    begin: Position | None = None  # of a resumed run
    begun_at: int | None = None  # optimizer steps in front of that
    _pending = False  # `begin` has not reached the loader yet
    _full = 0  # optimizer steps of an epoch from its beginning to its end

    # none of Lightning's ways to restart applies: a resumed run begins at its position
    @_Loop.restarting.setter
    def restarting(self, restarting: bool) -> None:
        _Loop.restarting.fset(self, False)

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        super().load_state_dict(state_dict, prefix)
        for loop in (self, self.epoch_loop, self.epoch_loop.val_loop):
            loop._loaded_from_state_dict = loop._resuming_from_checkpoint = False
        self._states = self._combined_loader_states_to_load
        self._start_at(position_in(state_dict))
        self._pending = True

    def _start_at(self, position: Position) -> None:
        """Sets all counters as an uninterrupted run has them in front of the next batch."""
        self.begin, loop = position, self.epoch_loop
        accumulate, step = self.trainer.accumulate_grad_batches, loop.global_step
        self.begun_at = step
        for progress in (self.epoch_progress.total, self.epoch_progress.current):
            _set_all(progress, position.epoch)
        _set_all(loop.batch_progress.total, step * accumulate)
        _set_all(loop.batch_progress.current, position.steps * accumulate)
        _set_all(loop.automatic_optimization.optim_progress.optimizer.zero_grad.total, step)
        loop.batch_progress.is_last_batch = False
        loop._batches_that_stepped, loop.begun = step, position.steps

    @property
    def _loader(self) -> ResumableLoader | None:
        """The training loader, if it is alone and knows positions."""
        loaders = [] if self._combined_loader is None else self._combined_loader.flattened
        alone = len(loaders) == 1 and isinstance(loaders[0], ResumableLoader)
        return loaders[0] if alone else None

    def setup_data(self) -> None:
        before = self._combined_loader
        super().setup_data()
        loader = self._loader
        if loader is None:
            return
        if self._combined_loader is not before or self._pending:
            self._full = int(self._limited(len(loader))) // loader.order.accumulate
            if self.begin is not None:
                self._resume(loader)
        self._measure(loader)

    def _resume(self, loader: ResumableLoader) -> None:
        """Tells the loader where to begin; what it says about the epoch's end counts."""
        if not self._pending:  # another loader of a later epoch
            loader.order.begin_at(self.begin)
            return
        if self._states:
            loader.load_state_dict(self._states[0])
        else:  # of a run whose loader did not count
            samples = self.begin.steps * loader.order.step_share
            loader.order.begin_at(replace(self.begin, samples=samples))
        start = loader.order.start
        if start.steps * loader.order.accumulate >= self._limited(len(loader)):
            loader.order.begin_at(Position(start.epoch + 1))
        self._start_at(loader.order.start)
        self._pending = False

    def _limited(self, batches: int) -> float:
        """Returns the batches of an epoch that has `batches`, under limit_train_batches."""
        limit = self.trainer.limit_train_batches
        limited = _parse_num_batches(RunningStage.TRAINING, batches, limit)
        return whole_steps(limited, self.trainer.accumulate_grad_batches)

    def _measure(self, loader: ResumableLoader) -> None:
        """Counts the batches of the epoch that comes.

        The epoch that a run resumes in may have more or fewer than the others. It does if batch
        size or accumulation are other ones now.
        """
        trainer, combined = self.trainer, self._combined_loader
        _set_sampler_epoch(loader, self.epoch_progress.current.processed)
        self.max_batches = self._limited(len(loader))
        combined.limits = [self.max_batches]
        iter(self._data_fetcher)  # takes the length anew; the loader draws nothing before `next`
        interval, accumulate = trainer.val_check_interval, trainer.accumulate_grad_batches
        if trainer._val_check_time_interval is not None:
            return
        if isinstance(interval, float):
            steps = max(1, int(self.max_batches // accumulate * interval))
            trainer.val_check_batch = steps * accumulate
        elif (
            trainer.check_val_every_n_epoch is not None
            and trainer.enable_validation
            and interval > self._full
        ):
            raise ValueError(
                f"trainer.val_check_interval is {interval} steps, but an epoch has {self._full}, so"
                " there would be no validation: lower it, or set check_val_every_n_epoch to null"
            )

    @property
    def epoch_of_last_step(self) -> int:
        """The epoch that the last optimizer step belongs to, also between two epochs."""
        loader = self._loader
        return self.epoch_progress.current.completed if loader is None else loader.position.epoch

    def total_steps(self, position: Position | None, step: int) -> float:
        """Returns the optimizer steps of a run that ends with max_epochs.

        Args:
            position: where it begins, if not at the very beginning.
            step: optimizer steps in front of that.
        """
        loader = self._loader
        if loader is None or self.max_epochs == -1:
            return float("inf")
        if position is None:
            return self._full * max(self.max_epochs, 1)
        left = min(loader.order.batches(position.samples), self._limited(len(loader)))
        rest = max(0, left // loader.order.accumulate)
        return step + rest + self._full * max(0, self.max_epochs - position.epoch - 1)
