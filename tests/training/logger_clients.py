"""Stand-ins for wandb, mlflow and trackio, which a test's environment may lack.

They have the calls that Lightning's loggers and this package make, with the packages' signatures,
and write down what they are given.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


class Thing:
    """A value of a client's own class, such as an image."""

    def __init__(self, kind: str, **content: Any) -> None:
        self.kind, self.content = kind, content


def histogram(sequence=None, np_histogram=None, num_bins=64) -> Thing:
    counts, edges = np_histogram
    assert len(edges) == len(counts) + 1 <= 513
    return Thing("histogram", counts=np.asarray(counts), edges=np.asarray(edges))


def install(patch: pytest.MonkeyPatch, modules: dict[str, dict[str, Any]]) -> None:
    """Makes modules of these names and contents importable."""
    for name, content in modules.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        vars(module).update(content)
        patch.setitem(sys.modules, name, module)


class WandbRun:
    """What wandb.init returns."""

    def __init__(self) -> None:
        self.id, self.name = "1", "a"
        self.config = SimpleNamespace(values={}, update=self._configure)
        self.logged: list[dict] = []

    def _configure(self, values: dict, allow_val_change: bool = False) -> None:
        self.config.values.update(values)

    def define_metric(self, name: str, step_metric=None, step_sync=None) -> None:
        pass

    def log(self, data: dict, step=None, commit=None) -> None:
        self.logged.append(dict(data))


def wandb(patch: pytest.MonkeyPatch) -> WandbRun:
    """Stands in for wandb; returns its one run."""
    run = WandbRun()
    content = {
        "run": None,
        "init": lambda **options: run,
        "Image": lambda value, caption=None: Thing("image", pixels=value),
        "Histogram": histogram,
        "Table": lambda columns=None, data=None, dataframe=None: Thing("table", data=data),
    }
    lib = {"RunDisabled": type("RunDisabled", (), {})}
    install(
        patch,
        {
            "wandb": content,
            "wandb.sdk": {},
            "wandb.sdk.lib": lib,
            "wandb.wandb_run": {"Run": WandbRun},
        },
    )
    patch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", True)
    return run


class MlflowClient:
    """mlflow's client; a run has the limits of mlflow's own."""

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.params: dict[str, str] = {}
        self.metrics: dict[str, dict[int, float]] = {}
        self.images: list[tuple[str, int, np.ndarray]] = []
        self.texts: dict[str, str] = {}

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str, artifact_location=None, tags=None) -> str:
        return "7"

    def create_run(self, experiment_id: str, start_time=None, tags=None, run_name=None):
        return SimpleNamespace(info=SimpleNamespace(run_id="r", experiment_id=experiment_id))

    def get_run(self, run_id: str) -> SimpleNamespace:
        info = SimpleNamespace(run_id=run_id, experiment_id="7")
        return SimpleNamespace(info=info, data=SimpleNamespace(params=dict(self.params)))

    def set_terminated(self, run_id: str, status=None, end_time=None) -> None:
        pass

    def log_batch(self, run_id: str, metrics=(), params=(), tags=(), synchronous=None) -> None:
        if len(metrics) > 1000 or len(params) > 100:
            raise ValueError("a batch of this size is refused")
        for param in params:
            if self.params.setdefault(param.key, param.value) != param.value:
                raise ValueError(f"{param.key} has another value already")
        for metric in metrics:
            self.metrics.setdefault(metric.key, {})[metric.step] = metric.value

    def log_image(
        self, run_id: str, image, artifact_file=None, key=None, step=None, timestamp=None
    ) -> None:
        self.images.append((key, step, image))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.texts[artifact_file] = text


def mlflow(patch: pytest.MonkeyPatch) -> None:
    """Stands in for mlflow."""
    entities = {
        "Param": lambda key, value: SimpleNamespace(key=key, value=value),
        "Metric": lambda key, value, timestamp, step: SimpleNamespace(
            key=key, value=value, step=step
        ),
    }
    context = {"resolve_tags": lambda tags: tags}
    install(
        patch,
        {
            "mlflow": {"set_tracking_uri": lambda uri: None},
            "mlflow.entities": entities,
            "mlflow.tracking.context": context,
            "mlflow.tracking": {"MlflowClient": MlflowClient},
        },
    )
    sys.modules["mlflow.tracking"].context = sys.modules["mlflow.tracking.context"]
    patch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", True)


class TrackioRun:
    """What trackio.init returns; a run's settings go with its first point."""

    def __init__(self, name: str, config: dict) -> None:
        self.name, self.config = name, config
        self.sent: dict | None = None
        self.logged: list[tuple[int, dict]] = []
        self.finished = False

    def log(self, metrics: dict, step: int | None = None) -> None:
        assert not self.finished
        self.sent = dict(self.config) if self.sent is None else self.sent
        self.logged.append((step, metrics))

    def finish(self) -> None:
        self.finished = True


def trackio(patch: pytest.MonkeyPatch) -> list[TrackioRun]:
    """Stands in for trackio; returns the runs that begin or go on, one after the other."""
    runs: list[TrackioRun] = []

    def init(
        project: str, name=None, group=None, space_id=None, config=None, resume="never"
    ) -> TrackioRun:
        assert name is None or resume == "allow", "it would begin another run"
        runs.append(TrackioRun(name or f"quiet-lake-{len(runs)}", config))
        return runs[-1]

    content = {
        "init": init,
        "Image": lambda value, caption=None: Thing("image", pixels=value),
        "Histogram": histogram,
        "Markdown": lambda text="": Thing("text", text=text),
    }
    install(patch, {"trackio": content})
    return runs
