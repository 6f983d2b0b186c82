"""Tells what each kind of logger can show, and gives it to the logger.

Callbacks ask for the displays of a run. Every logger takes curves and settings. A logger that
cannot show something else is named once, with all that it leaves out.
"""

import re
from typing import NamedTuple
from weakref import WeakSet

import lightning as L
import numpy as np
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.tensorboard.summary import hparams

from lit_mimdit.routing.tally import BINS
from lit_mimdit.training.trackio_logger import TrackioLogger

PICTURES = "pictures"
HISTOGRAMS = "histograms"
TEXTS = "texts"
EDGES = np.linspace(0, 1, BINS + 1)
Value = bool | int | float | str
Charts = dict[str, dict[str, list]]
FORBIDDEN = re.compile(r"[^\w/. -]", re.ASCII)  # in MLflow's names


class Histogram(NamedTuple):
    """Counts of values in equal bins of [0, 1]; all histograms of a run share this axis.

    counts: (BINS,). total, squares: sums of the values and of their squares.
    """

    counts: np.ndarray
    total: float
    squares: float


class Display:
    """Shows a run in one logger. This one suits any logger: it has curves and settings."""

    shows: frozenset[str] = frozenset()

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def curves(self, values: dict[str, float], step: int) -> None:
        """Adds a point to each curve."""
        self.logger.log_metrics(values, step)

    def settings(self, values: dict[str, Value], metrics: list[str]) -> None:
        """Shows the settings that a run starts with, and names the curves they are judged by."""
        self.logger.log_hyperparams(values)

    def finished(self) -> None:
        """Says that the run came to its end."""

    def charts(self, charts: Charts) -> None:
        """Arranges curves on a page; only TensorBoard has one."""

    def picture(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Shows a picture, (H, W, 3) uint8."""
        raise NotImplementedError

    def histograms(self, histograms: dict[str, Histogram], step: int) -> None:
        """Shows histograms by their tags."""
        raise NotImplementedError

    def text(self, tag: str, text: str, step: int) -> None:
        """Shows a text."""
        raise NotImplementedError


class TensorBoardDisplay(Display):
    """TensorBoard shows everything, and has pages of its own for settings and charts."""

    shows = frozenset({PICTURES, HISTOGRAMS, TEXTS})

    def settings(self, values: dict[str, Value], metrics: list[str]) -> None:
        # the page reads the metrics' own curves: a run that goes on, or was killed, has them too
        for summary in hparams(values, dict.fromkeys(metrics, 0.0))[:2]:
            self.logger.experiment.file_writer.add_summary(summary)

    def finished(self) -> None:
        self.logger.experiment.file_writer.add_summary(hparams({}, {})[2])

    def charts(self, charts: Charts) -> None:
        self.logger.experiment.add_custom_scalars(charts)

    def picture(self, tag: str, pixels: np.ndarray, step: int) -> None:
        self.logger.experiment.add_image(tag, pixels, step, dataformats="HWC")

    def histograms(self, histograms: dict[str, Histogram], step: int) -> None:
        limits = EDGES[1:].tolist()
        for tag, (counts, total, squares) in histograms.items():
            self.logger.experiment.add_histogram_raw(
                tag, 0.0, 1.0, float(counts.sum()), total, squares, limits, counts.tolist(), step
            )

    def text(self, tag: str, text: str, step: int) -> None:
        self.logger.experiment.add_text(tag, text, step)


class ImageDisplay(Display):
    """Loggers of other packages often have the `log_image` of Lightning's WandbLogger."""

    shows = frozenset({PICTURES})

    def picture(self, tag: str, pixels: np.ndarray, step: int) -> None:
        self.logger.log_image(key=tag, images=[pixels], step=step)


class WandbDisplay(ImageDisplay):
    """Weights & Biases shows everything; a text is a table with one cell."""

    shows = frozenset({PICTURES, HISTOGRAMS, TEXTS})

    def histograms(self, histograms: dict[str, Histogram], step: int) -> None:
        from wandb import Histogram as WandbHistogram

        values = {
            tag: WandbHistogram(np_histogram=(one.counts, EDGES)) for tag, one in histograms.items()
        }
        self.logger.log_metrics(values, step)

    def text(self, tag: str, text: str, step: int) -> None:
        self.logger.log_text(key=tag, columns=["text"], data=[[text]], step=step)


class MLFlowDisplay(Display):
    """MLflow has pictures by step and texts as files of a run, but no histograms."""

    shows = frozenset({PICTURES, TEXTS})
    BATCH = 1000  # curves that MLflow takes at once

    def curves(self, values: dict[str, float], step: int) -> None:
        names = list(values)
        for start in range(0, len(names), self.BATCH):
            part = {name: values[name] for name in names[start : start + self.BATCH]}
            self.logger.log_metrics(part, step)

    def settings(self, values: dict[str, Value], metrics: list[str]) -> None:
        # a run keeps the first value of a setting, and MLflow raises an error at another
        known = self.logger.experiment.get_run(self.logger.run_id).data.params
        self.logger.log_hyperparams({k: v for k, v in values.items() if k not in known})
        changed = [k for k, v in values.items() if known.get(k, str(v)[:250]) != str(v)[:250]]
        if changed:
            rank_zero_warn(
                f"MLflow keeps the settings that run {self.logger.run_id} began with:"
                f" {', '.join(f'{name} {known[name]}' for name in changed)}; take another run_id"
                " to see the new ones"
            )

    def picture(self, tag: str, pixels: np.ndarray, step: int) -> None:
        key = FORBIDDEN.sub("_", tag)
        self.logger.experiment.log_image(self.logger.run_id, pixels, key=key, step=step)

    def text(self, tag: str, text: str, step: int) -> None:
        file = f"{FORBIDDEN.sub('_', tag)}/step_{step:08d}.txt"
        self.logger.experiment.log_text(self.logger.run_id, text, file)


class TrackioDisplay(Display):
    """trackio shows everything."""

    shows = frozenset({PICTURES, HISTOGRAMS, TEXTS})

    def picture(self, tag: str, pixels: np.ndarray, step: int) -> None:
        import trackio

        self.logger.log({tag: trackio.Image(pixels)}, step)

    def histograms(self, histograms: dict[str, Histogram], step: int) -> None:
        import trackio

        values = {
            tag: trackio.Histogram(np_histogram=(one.counts, EDGES))
            for tag, one in histograms.items()
        }
        self.logger.log(values, step)

    def text(self, tag: str, text: str, step: int) -> None:
        import trackio

        self.logger.log({tag: trackio.Markdown(text)}, step)


KINDS: dict[type[Logger], type[Display]] = {
    TensorBoardLogger: TensorBoardDisplay,
    WandbLogger: WandbDisplay,
    MLFlowLogger: MLFlowDisplay,
    TrackioLogger: TrackioDisplay,
}
_said: WeakSet[Logger] = WeakSet()


def display_of(logger: Logger) -> Display:
    """Returns the display that suits a logger."""
    for kind, display in KINDS.items():
        if isinstance(logger, kind):
            return display(logger)
    takes_images = callable(getattr(logger, "log_image", None))
    return ImageDisplay(logger) if takes_images else Display(logger)


def displays(trainer: L.Trainer, what: str | None = None) -> list[Display]:
    """Returns the displays of a run, on the first process; none on others.

    Args:
        what: pictures, histograms or texts leaves out displays without them, and names their
            loggers; None means curves and settings, which all have.
    """
    every = [
        display_of(logger)
        for logger in trainer.loggers
        # a fast_dev_run has the dummy
        if trainer.is_global_zero and not isinstance(logger, DummyLogger)
    ]
    if what is None:
        return every
    for display in every:
        if what not in display.shows:
            _say_once(display)
    return [display for display in every if what in display.shows]


def show_picture(trainer: L.Trainer, tag: str, pixels: np.ndarray, step: int) -> None:
    """Shows a picture in every logger of the run that has pictures.

    Args:
        tag: group and name, such as samples/lq_restored_gt.
        pixels: (H, W, 3) uint8.
        step: optimizer steps so far.
    """
    for display in displays(trainer, PICTURES):
        display.picture(tag, pixels, step)


def _say_once(display: Display) -> None:
    """Warns of all that a logger leaves out, at the first time only."""
    if display.logger in _said:
        return
    _said.add(display.logger)
    lacking = [what for what in (PICTURES, HISTOGRAMS, TEXTS) if what not in display.shows]
    listed = " and ".join(filter(None, [", ".join(lacking[:-1]), lacking[-1]]))
    rank_zero_warn(
        f"{type(display.logger).__name__} cannot show {listed}, so they are left out; add"
        " TensorBoardLogger to trainer.logger to see them, or another of docs/how_to/loggers.md"
    )
