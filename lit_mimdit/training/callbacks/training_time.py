"""Measures how long a run has trained, over all its cuts, and keeps a budget of that time."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info


class TrainingTime(L.Callback):
    """Measures the seconds that a run trains, and ends it when its budget of them is spent.

    The time of steps, of reading data and of saving counts; validation does not. A checkpoint holds
    the seconds, so a resumed run goes on with the rest of its budget. What a killed run did after
    its last checkpoint is lost, and its time with it.

    Args:
        minutes: budget of training time. `null` only measures.
    """

    def __init__(self, minutes: float | None = None) -> None:
        if minutes is not None and minutes <= 0:
            raise ValueError(f"TrainingTime: minutes is {minutes}; it must be more than 0, or null")
        self.budget = None if minutes is None else 60.0 * minutes
        self._clock = time.monotonic  # seconds that never go back
        self._counted = 0.0  # seconds in front of the moment below
        self._running_since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds trained until now, over all cuts of the run."""
        if self._running_since is None:
            return self._counted
        return self._counted + self._clock() - self._running_since

    @property
    def spent(self) -> bool:
        """Returns whether the budget is used up; never without one."""
        return self.budget is not None and self.seconds >= self.budget

    @property
    def share_of_budget(self) -> float | None:
        """Part of the budget that is used up, in [0, 1]; None without a budget."""
        return None if self.budget is None else min(1.0, self.seconds / self.budget)

    def _go(self) -> None:
        self._running_since = self._clock()

    def _pause(self) -> None:
        self._counted, self._running_since = self.seconds, None

    def _stop_if_spent(self, trainer: L.Trainer) -> None:
        if self.budget is None or not trainer.strategy.broadcast(self.spent):
            return
        trainer.should_stop = True
        rank_zero_info(
            f"The budget of {self.budget / 60:g} min is spent at step {trainer.global_step}."
        )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_if_spent(trainer)  # a run that is resumed behind its end does no step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._go()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not trainer.fit_loop._should_accumulate():  # a step is finished first
            self._stop_if_spent(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pause()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._go()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pause()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._counted = state_dict["seconds"]


def seconds_in(checkpoint: dict[str, Any]) -> float | None:
    """Returns seconds that the run of a Lightning checkpoint had trained; None if nobody measured
    them.
    """
    state = checkpoint.get("callbacks", {}).get(TrainingTime.__qualname__)
    return None if state is None else state["seconds"]
