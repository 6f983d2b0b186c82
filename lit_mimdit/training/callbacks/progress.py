"""One progress bar for the whole run, with the time it has left."""

import math
import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm


class TrainingProgress(ProgressBar):
    """Counts optimizer steps of the run (not batches of an epoch), shows the logged metrics, and
    the batches of an evaluation below.

    On a terminal the bar moves; in a file or a pipe it writes a line now and then.

    Args:
        every_n_steps: training steps after which the metrics shown are renewed.
        seconds_in_file: least seconds between two lines when the output is no terminal.
    """

    def __init__(self, every_n_steps: int = 5, seconds_in_file: float = 30.0) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(
                f"TrainingProgress: every_n_steps is {every_n_steps}; it must be at least 1"
            )
        self.every_n_steps = every_n_steps
        self.interval = 0.2 if sys.stderr.isatty() else seconds_in_file
        self.bar: tqdm | None = None
        self.below: tqdm | None = None
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def _open(
        self, total: float | None, text: str, unit: str, initial: int = 0, below: bool = False
    ) -> tqdm:
        whole = int(total) if total is not None and math.isfinite(total) else None
        on_screen = sys.stderr.isatty()
        return tqdm(
            total=whole,
            desc=text,
            unit=unit,
            initial=initial,
            mininterval=self.interval,
            maxinterval=self.interval,
            leave=not below,
            position=int(below),
            dynamic_ncols=on_screen,
            ncols=None if on_screen else 160,
            disable=not self.enabled or (below and not on_screen),
        )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar = self._open(
            trainer.estimated_stepping_batches, "training", "step", initial=trainer.global_step
        )

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.bar.update(trainer.global_step - self.bar.n)
        if trainer.global_step % self.every_n_steps == 0:
            shown = {
                name.split("/")[-1]: value
                for name, value in self.get_metrics(trainer, pl_module).items()
                if name != "v_num"
            }
            self.bar.set_postfix(
                {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in shown.items()},
                refresh=False,
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        for bar in (self.below, self.bar):
            if bar is not None:
                bar.close()

    def _start_below(self, batches: list[int | float] | int | float, text: str) -> None:
        self.below = self._open(
            sum(batches) if isinstance(batches, list) else batches, text, "batch", below=True
        )

    def _end_batch(self, *_: Any) -> None:
        self.below.update()

    def _end_below(self, *_: Any) -> None:
        self.below.close()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_below(trainer.num_val_batches, "validation")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_below(trainer.num_test_batches, "test")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_below(trainer.num_predict_batches, "photographs")

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _end_batch
    on_validation_end = on_test_end = on_predict_end = _end_below
