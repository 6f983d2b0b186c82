"""trackio as a logger of the trainer; Lightning brings none for it."""

from argparse import Namespace
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from trackio import Run


class TrackioLogger(Logger):
    """Writes a run into trackio's database, on this machine or in a Space of the Hugging Face Hub.

    Args:
        project: runs of one project are compared on one page.
        name: of the run; null lets trackio choose one. A run of this name goes on if there is one.
        group: runs of one group are shown and hidden together.
        space_id: OWNER/NAME of a Space that shows the runs; null keeps them on this machine, in
            the folder that the variable TRACKIO_DIR names.
    """

    def __init__(
        self,
        project: str,
        name: str | None = None,
        group: str | None = None,
        space_id: str | None = None,
    ) -> None:
        if find_spec("trackio") is None:
            raise ValueError(
                "trainer.logger is TrackioLogger, but trackio is not installed: pip install trackio"
            )
        super().__init__()
        self._project, self._name = project, name
        self._options = {"group": group, "space_id": space_id}
        self._settings: dict[str, Any] = {}
        self._run: Run | None = None
        self._has_points = False

    @property
    @rank_zero_experiment
    def experiment(self) -> "Run":
        """trackio's run; it begins, or goes on, when it is asked for."""
        import trackio

        if self._run is None:
            self._run = trackio.init(
                self._project,
                self._name,
                config=dict(self._settings),  # a run that goes on would lose them
                resume="allow",
                **self._options,
            )
            self._name, self._has_points = self._run.name, False
        return self._run

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The run's name; None if trackio has not chosen it yet."""
        return self._name

    @rank_zero_only
    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Sends numbers, pictures, histograms or texts of a step."""
        self.experiment.log(dict(values), step)
        self._has_points = True

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a point to each curve."""
        self.log(metrics, step)

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Adds settings. trackio takes them until the first point of a curve."""
        values = vars(params) if isinstance(params, Namespace) else params
        new = {name: one for name, one in values.items() if self._settings.get(name) != one}
        self._settings |= new
        self.experiment.config.update(new)
        if new and self._has_points:
            rank_zero_warn(
                "trackio shows the settings that a run had at its first point; these came later:"
                f" {', '.join(new)}"
            )

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Waits until everything is in the database. What comes later goes on with the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None
