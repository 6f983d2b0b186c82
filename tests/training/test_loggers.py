"""What a run shows reaches every logger, or the logger is named once.

Each logger is tried on a stand-in of its client, and on the client itself where it is installed.
"""

import csv
import sys
import warnings
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import logger_clients
import numpy as np
import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mimdit import cli
from lit_mimdit.routing.tally import BINS
from lit_mimdit.training import callbacks
from lit_mimdit.training.callbacks.loggers import (
    EDGES,
    HISTOGRAMS,
    PICTURES,
    TEXTS,
    Histogram,
    displays,
    show_picture,
)
from lit_mimdit.training.trackio_logger import TrackioLogger

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
COUNTS = np.arange(BINS, dtype=np.float64)
SETTINGS = {"branch.width": 16, "optimizer.lr": 1e-3, "branch.chained": True, "data.root": "x"}


def trainer(*loggers, zero: bool = True) -> SimpleNamespace:
    return SimpleNamespace(loggers=list(loggers), is_global_zero=zero, global_step=3)


def show_everything(*loggers) -> None:
    """Gives each kind of thing to every logger that has it, as the callbacks do."""
    run = trainer(*loggers)
    for display in displays(run):
        display.settings(SETTINGS, ["val/psnr_restored"])
        display.curves({"train/loss": 2.0, "inter_weight_train/mean_0_spatial": 0.25}, 3)
    show_picture(run, "samples/lq_restored_gt", PIXELS, 3)
    for display in displays(run, HISTOGRAMS):
        display.histograms({"inter_moe_train/block_00_0_spatial": Histogram(COUNTS, 9.0, 5.0)}, 3)
    for display in displays(run, TEXTS):
        display.text("router_health_train/warnings", "dead: 1", 3)
    for display in displays(run):
        display.finished()
    for logger in loggers:
        logger.finalize("success")


# -- on stand-ins of the clients


def test_weights_and_biases_is_given_everything(monkeypatch):
    run = logger_clients.wandb(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        show_everything(WandbLogger(project="p"))
    assert run.config.values == SETTINGS
    assert [one["trainer/global_step"] for one in run.logged] == [3] * 4
    curves, pictures, histograms, texts = run.logged
    assert curves["train/loss"] == 2.0 and curves["inter_weight_train/mean_0_spatial"] == 0.25
    (picture,) = pictures["samples/lq_restored_gt"]
    assert picture.kind == "image" and (picture.content["pixels"] == PIXELS).all()
    shown = histograms["inter_moe_train/block_00_0_spatial"].content
    assert (shown["counts"] == COUNTS).all() and shown["edges"][[0, -1]].tolist() == [0.0, 1.0]
    assert texts["router_health_train/warnings"].content["data"] == [["dead: 1"]]


def test_mlflow_is_given_all_but_histograms(monkeypatch):
    logger_clients.mlflow(monkeypatch)
    logger = MLFlowLogger(tracking_uri="sqlite:///none.db")
    with pytest.warns(UserWarning, match="MLFlowLogger cannot show histograms, so"):
        show_everything(logger)
    client = logger.experiment
    assert client.params == {name: str(value) for name, value in SETTINGS.items()}
    assert client.metrics["train/loss"] == {3: 2.0}
    ((key, step, pixels),) = client.images
    assert (key, step) == ("samples/lq_restored_gt", 3) and (pixels == PIXELS).all()
    assert client.texts == {"router_health_train/warnings/step_00000003.txt": "dead: 1"}


def test_mlflow_takes_many_curves_and_names_it_does_not_know(monkeypatch):
    logger_clients.mlflow(monkeypatch)
    logger = MLFlowLogger(tracking_uri="sqlite:///none.db")
    (display,) = displays(trainer(logger))
    display.curves({f"share/{number}": number / 2500 for number in range(2500)}, 4)
    assert len(logger.experiment.metrics) == 2500
    show_picture(trainer(logger), "routing_by_degradation/夜#1", PIXELS, 4)
    assert logger.experiment.images[0][0] == "routing_by_degradation/__1"


def test_an_mlflow_run_that_goes_on_names_the_settings_that_changed(monkeypatch):
    logger_clients.mlflow(monkeypatch)
    logger = MLFlowLogger(tracking_uri="sqlite:///none.db")
    (display,) = displays(trainer(logger))
    display.settings(SETTINGS, [])
    with pytest.warns(UserWarning, match=r"MLflow keeps .*run r began with: optimizer.lr 0.001;"):
        display.settings(SETTINGS | {"optimizer.lr": 0.5, "data.seed": 1}, [])
    assert logger.experiment.params["optimizer.lr"] == "0.001"
    assert logger.experiment.params["data.seed"] == "1"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # MLflow keeps 250 letters of it
            display.settings({"data.types": "x" * 300}, [])


def test_trackio_is_given_everything(monkeypatch):
    runs = logger_clients.trackio(monkeypatch)
    logger = TrackioLogger("p")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        show_everything(logger)
    (run,) = runs
    assert run.finished and run.sent == SETTINGS and [step for step, _ in run.logged] == [3] * 4
    curves, pictures, histograms, texts = (values for _, values in run.logged)
    assert curves == {"train/loss": 2.0, "inter_weight_train/mean_0_spatial": 0.25}
    assert (pictures["samples/lq_restored_gt"].content["pixels"] == PIXELS).all()
    shown = histograms["inter_moe_train/block_00_0_spatial"].content
    assert (shown["counts"] == COUNTS).all() and shown["edges"][[0, -1]].tolist() == [0.0, 1.0]
    assert texts["router_health_train/warnings"].content["text"] == "dead: 1"
    assert (logger.name, logger.version) == ("p", "quiet-lake-0")


def test_trackio_goes_on_with_its_run_and_keeps_the_settings(monkeypatch):
    runs = logger_clients.trackio(monkeypatch)
    logger = TrackioLogger("p")
    show_everything(logger)
    logger.log_metrics({"test/psnr_restored": 20.0}, 6)
    assert [run.name for run in runs] == ["quiet-lake-0"] * 2 and runs[1].sent == SETTINGS
    with pytest.warns(UserWarning, match="at its first point; these came later: data.seed"):
        logger.log_hyperparams(SETTINGS | {"data.seed": 1})


def test_trackio_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setattr("lit_mimdit.training.trackio_logger.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="trackio is not installed: pip install trackio"):
        TrackioLogger("p")


# -- any other logger


def test_a_logger_without_pictures_is_named_once(tmp_path):
    class Images(CSVLogger):
        def log_image(self, key, images, step=None):
            seen.append((key, images[0].shape, step))

    seen: list = []
    run = trainer(Images(tmp_path / "images"), CSVLogger(tmp_path / "csv"))
    with pytest.warns(UserWarning) as said:
        for step in (1, 2):
            show_picture(run, "a/b", PIXELS, step)
            assert not displays(run, HISTOGRAMS) and not displays(run, TEXTS)
    assert seen == [("a/b", (4, 5, 3), 1), ("a/b", (4, 5, 3), 2)]
    told = [str(one.message) for one in said]
    assert [one.split(",")[0] for one in told if one.startswith("CSVLogger")] == [
        "CSVLogger cannot show pictures"
    ]
    assert [one.split(" so ")[0] for one in told if one.startswith("Images")] == [
        "Images cannot show histograms and texts,"
    ]
    assert len(told) == 2 and "pictures, histograms and texts, so they are left out" in told[0]


def test_other_processes_and_a_fast_run_show_nothing_and_say_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for what in (None, PICTURES, HISTOGRAMS, TEXTS):
            assert not displays(trainer(CSVLogger(tmp_path), zero=False), what)
            assert not displays(trainer(DummyLogger()), what)


def test_every_logger_of_a_run_has_the_losses_by_time(tmp_path):
    import torch

    loggers = [CSVLogger(tmp_path / name) for name in "ab"]
    callback, run = callbacks.LossByTime(bins=2, every_n_steps=1), trainer(*loggers)
    callback.on_train_batch_end(
        run, None, {"per_sample": torch.tensor([4.0]), "t": torch.tensor([0.9])}, None, 0
    )
    for logger in loggers:
        assert logger.experiment.metrics == [{"train/loss_t0.5-1.0": 4.0, "step": 3}]


# -- a run of the command


def columns(path: Path) -> set[str]:
    with open(path, newline="", encoding="utf-8") as file:
        return set(next(csv.reader(file)))


def test_a_run_shows_the_same_curves_in_every_logger(tiny, monkeypatch, tmp_path):
    runs = logger_clients.trackio(monkeypatch)
    own = {"class_path": "lit_mimdit.training.trackio_logger.TrackioLogger"}
    loggers = [own | {"init_args": {"project": "p", "name": "n"}}]
    loggers += [
        {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": {"save_dir": name}}
        for name in ("TensorBoardLogger", "CSVLogger")
    ]
    extra = tmp_path / "loggers.yaml"
    extra.write_text(yaml.safe_dump({"trainer": {"logger": loggers}}), encoding="utf-8")
    with pytest.warns(UserWarning, match="CSVLogger cannot show") as said:
        assert cli.main(["fit", "-c", tiny(), "-c", str(extra)]) == 0
    assert sum("cannot show" in str(one.message) for one in said) == 1
    (folder,) = Path("TensorBoardLogger").rglob("version_0")
    guidance = {"histograms": 0, "images": 0, "scalars": 0}
    events = EventAccumulator(str(folder), size_guidance=guidance).Reload()
    tags = events.Tags()
    (table,) = Path("CSVLogger").rglob("metrics.csv")
    assert columns(table) - {"step"} == set(tags["scalars"])
    (run,) = runs
    shown = {tag: value for _, values in run.logged for tag, value in values.items()}
    kinds = {tag: getattr(value, "kind", "curve") for tag, value in shown.items()}
    for kind, name in (("curve", "scalars"), ("image", "images"), ("histogram", "histograms")):
        assert {tag for tag, one in kinds.items() if one == kind} == set(tags[name]), kind
    assert any(tag.startswith("sub_expert_share_train/") for tag in tags["scalars"])
    settings = yaml.safe_load(next(Path("CSVLogger").rglob("hparams.yaml")).read_text())
    assert settings == run.sent and settings["branch.width"] == 16
    # trackio has no folder for them
    written = Path(
        yaml.safe_load((tmp_path / "tiny.yaml").read_text())["trainer"]["default_root_dir"]
    )
    assert {"run.json", "config.yaml", "val_scores.csv"} <= {one.name for one in written.iterdir()}


# -- on the clients themselves


def test_the_event_file_of_tensorboard_holds_everything(tmp_path):
    show_everything(TensorBoardLogger(tmp_path, name="", version="a"))
    tags = EventAccumulator(str(tmp_path / "a")).Reload().Tags()
    assert set(tags["scalars"]) == {"train/loss", "inter_weight_train/mean_0_spatial"}
    assert tags["images"] == ["samples/lq_restored_gt"]
    assert tags["histograms"] == ["inter_moe_train/block_00_0_spatial"]
    assert "router_health_train/warnings/text_summary" in tags["tensors"]
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    (picture,) = events.Images("samples/lq_restored_gt")
    assert (np.array(Image.open(BytesIO(picture.encoded_image_string))) == PIXELS).all()
    (shown,) = events.Histograms("inter_moe_train/block_00_0_spatial")
    assert shown.histogram_value.bucket == COUNTS.tolist()
    assert np.allclose(shown.histogram_value.bucket_limit, EDGES[1:])
    assert {picture.step, shown.step} == {3}


def test_a_local_run_of_weights_and_biases_holds_everything(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "own"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(project="p", save_dir=tmp_path, offline=True)
    show_everything(logger)
    summary = dict(logger.experiment.summary)
    logger.experiment.finish()
    assert summary["train/loss"] == 2.0
    assert summary["inter_moe_train/block_00_0_spatial"]["_type"] == "histogram"
    assert len(list(tmp_path.rglob("media/images/**/*.png"))) == 1
    assert len(list(tmp_path.rglob("media/table/**/*.json"))) == 1
    assert logger.experiment.config["branch.width"] == 16


def test_a_database_of_mlflow_holds_all_but_histograms(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    logger = MLFlowLogger(tracking_uri=address, artifact_location=(tmp_path / "files").as_uri())
    with pytest.warns(UserWarning, match="MLFlowLogger cannot show histograms, so"):
        show_everything(logger)
    (display,) = displays(trainer(logger))
    display.curves({f"share/{number}": 0.5 for number in range(1500)}, 4)
    with pytest.warns(UserWarning, match="MLflow keeps"):
        display.settings(SETTINGS | {"optimizer.lr": 0.5}, [])
    data = logger.experiment.get_run(logger.run_id).data
    assert data.params == {name: str(value) for name, value in SETTINGS.items()}
    assert len(data.metrics) == 1502 and data.metrics["train/loss"] == 2.0
    assert len(list((tmp_path / "files").rglob("images/*.png"))) == 1
    (text,) = (tmp_path / "files").rglob("*.txt")
    assert text.read_text() == "dead: 1"


def test_a_database_of_trackio_holds_everything(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in [one for one in sys.modules if one.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads its folder when it is imported
    logger = TrackioLogger("p")
    show_everything(logger)
    logger.log_metrics({"test/psnr_restored": 20.0}, 6)
    logger.finalize("success")
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs("p") == [logger.version]
    rows = SQLiteStorage.get_logs("p", logger.version)
    kinds = {
        tag: value["_type"] for row in rows for tag, value in row.items() if type(value) is dict
    }
    assert kinds == {
        "samples/lq_restored_gt": "trackio.image",
        "inter_moe_train/block_00_0_spatial": "trackio.histogram",
        "router_health_train/warnings": "trackio.markdown",
    }
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [2.0]
    assert [row["step"] for row in rows] == [3, 3, 3, 3, 6]
    settings = SQLiteStorage.get_run_config("p", logger.version)
    assert {name: settings[name] for name in SETTINGS} == SETTINGS
    assert len(list((tmp_path / "media").rglob("*.png"))) == 1
