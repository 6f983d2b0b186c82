"""`test` by YAML.

The same scores as `evaluate` on its own files, several data sets, and its page.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from lit_mimdit import cli
from lit_mimdit.evaluation.summary import ALL
from lit_mimdit.inference.run_record import read_record

from .conftest import picture, save


@pytest.fixture
def tested(tiny, data_root, monkeypatch, tmp_path) -> Path:
    """The log folder of a `test` over the sample set and a UHD-LL folder, with kept images."""
    for side, name in (("gt", "GT"), ("input", "LQ")):
        for number, path in enumerate(sorted(Path(data_root, "test").rglob(f"{name}/*.png"))):
            target = Path("uhdll", "testing_set", side, f"{number}_UHD_LL.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    config = tiny(
        **{
            "data.init_args.benchmarks": {"uhdll": "uhdll"},
            "model.init_args.metrics": ["psnr", "ssim_y", "niqe"],
        }
    )
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    assert cli.main(["test", "-c", with_kept_images(config)]) == 0
    return next(Path("runs").rglob("test_summary.json")).parent


def with_kept_images(config: str) -> str:
    values = yaml.safe_load(Path(config).read_text())
    for callback in values["trainer"]["callbacks"]:
        if callback["class_path"].endswith("ResultTable"):
            callback["init_args"] = {"keep_images": True}
    Path(config).write_text(yaml.safe_dump(values))
    return config


def test_its_scores_are_those_of_evaluate_and_data_sets_stay_apart(tested, capsys):
    summary = json.loads((tested / "test_summary.json").read_text())
    pooled = [g for g in summary["groups"] if g["degradation"] == ALL]
    assert [(g["dataset"], g["n"]) for g in pooled] == [("FoundIR", 2), ("UHD-LL", 2)]
    assert summary["image_rule"] == "middle crop of 32 px, RGB, 8 bits, no resize"
    assert summary["metrics"]["niqe"]["status"].startswith("not computed: weights missing")
    made = summary["restoration"]
    assert (
        made["sampling"]["steps"] == 2
        and made["colour_fix"] == "none"
        and len(made["config_hash"]) == 16
        and "commit" in made
    )
    assert len(json.loads((tested / "test_routing.json").read_text())) == 4
    images = tested / "test_images"
    args = [
        "--restored",
        images / "restored",
        "--reference",
        images / "reference",
        "--degraded",
        images / "degraded",
    ]
    assert cli.main(["evaluate", *map(str, args), "-o", "again", "--metrics", "psnr,ssim_y"]) == 0
    with (
        open(tested / "test_scores.csv", newline="") as first,
        open("again/scores.csv", newline="") as second,
    ):
        ours = {
            Path(row["restored_file"]).stem + row["dataset"]: row for row in csv.DictReader(first)
        }
        again = {
            Path(row["restored_file"]).stem + row["id"].split("/")[0]: row
            for row in csv.DictReader(second)
        }
    assert len(ours) == 4 and ours.keys() == again.keys()
    for name, row in ours.items():
        for column in ("degraded_psnr", "restored_psnr", "restored_ssim_y"):
            assert float(row[column]) == pytest.approx(float(again[name][column]), abs=1e-6), (
                name,
                column,
            )
    assert cli.main(["report", str(tested), "-o", "page"]) == 0
    assert (
        "vae round trip" in Path("page/report.md").read_text()
        and "version_0_best_0.png" in Path("page/report.md").read_text()
    )


def test_impossible_metrics_and_benchmarks_are_one_line(tiny, capsys):
    assert cli.main(["test", "-c", tiny(**{"model.init_args.metrics": ["psnr", "lpip"]})]) == 2
    assert "model.metrics: no metric 'lpip'" in capsys.readouterr().err
    assert (
        cli.main(["test", "-c", tiny(**{"data.init_args.benchmarks": {"kodak": "somewhere"}})]) == 2
    )
    assert "data.benchmarks: 'kodak' needs a layout of foundir, 4krd" in capsys.readouterr().err


def test_restore_leaves_a_record_of_its_folder(tiny):
    """What made the images stands beside them; `evaluate` passes it on
    (tests/evaluation/test_evaluate.py).
    """
    config = tiny(**{"trainer.max_steps": 1, "trainer.limit_val_batches": 0})
    assert cli.main(["fit", "-c", config]) == 0
    last = "runs/quickstart/checkpoints/last.ckpt"
    save(Path("in/sub/a.png"), picture(0))
    assert (
        cli.main(
            [
                "restore",
                "in",
                "-o",
                "out",
                "--checkpoint",
                last,
                "--steps",
                "3",
                "--seed",
                "5",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    record = read_record(Path("out"))
    assert (
        record["sampling"]["steps"] == 3
        and record["seed"] == 5
        and record["checkpoint"]["name"] == "last.ckpt"
    )
    weights = record["images"]["sub/a.png"]
    assert len(weights) == 3 and all(
        sum(block) == pytest.approx(1.0, abs=1e-3) for block in weights
    )
    assert read_record(Path("in")) is None


def test_two_processes_write_what_one_writes(starter, tiny, tmp_path):
    """The whole command, with kept images.

    Rank 0 restores one of the two, rank 1 the other; the same files to the last digit.
    """
    changes = {
        "data.init_args.eval_batch_size": 1,
        "model.init_args.metrics": ["psnr", "ssim_y", "niqe"],
    }
    config = with_kept_images(tiny(**changes))
    for name, devices, strategy in (("one", 1, "auto"), ("two", 2, "ddp")):
        options = ["--trainer.devices", str(devices), "--trainer.strategy", strategy]
        options += ["--trainer.logger.init_args.name", name]
        command = ["test", "-c", config, *options]
        starter.run_ranks(tmp_path, command, devices, TORCH_HOME=tmp_path / "none")
    one, two = (
        next(Path("runs", name).rglob("test_summary.json")).parent for name in ("one", "two")
    )
    for name in ("test_summary.json", "test_scores.csv", "test_tables.md", "test_routing.json"):
        assert (one / name).read_text() == (two / name).read_text(), name
    kept = [
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
        for folder in (one, two)
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 6
