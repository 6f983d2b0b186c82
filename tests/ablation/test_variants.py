"""A variant's configuration: what is merged, what another system replaces, what does not fit it."""

import sys
from pathlib import Path

import pytest
import yaml

from lit_mimdit.ablation.command import LOG, START, run_logged
from lit_mimdit.ablation.run import unfinished
from lit_mimdit.ablation.runs import FROZEN, Run, freeze
from lit_mimdit.ablation.study import EarlierRun, Study, Variant, read_study
from lit_mimdit.ablation.variants import WATCH, budget_of, merge, system_of, whole

MIMDIT = "lit_mimdit.systems.mimdit.MiMDiT"
REGRESSION = "lit_mimdit.systems.regression.Regression"
CONTROLNET = "lit_mimdit.systems.controlnet.ControlNet"
CLASSICAL = "lit_mimdit.systems.classical.Classical"
CALLBACKS = "lit_mimdit.training.callbacks"
BASE = {
    "model": {"class_path": MIMDIT, "init_args": {"branch": {"width": 80}, "backbone": "nano"}},
    "trainer": {
        "max_steps": 9,
        "callbacks": [
            {"class_path": f"{CALLBACKS}.{name}"}
            for name in ("LossByTime", "RoutingHistograms", "RoutingPictures", "ResultTable")
        ],
    },
}


def names(values: dict) -> list[str]:
    return [one["class_path"].rpartition(".")[2] for one in values["trainer"]["callbacks"]]


def test_mappings_are_merged_and_lists_replaced():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [5]}, "e": {"f": 6}}) == {
        "a": {"b": 1, "c": [5]},
        "d": 3,
        "e": {"f": 6},
    }
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}, "untouched"


def test_another_class_replaces_the_arguments_and_the_same_class_merges_them():
    other = {"model": {"class_path": REGRESSION, "init_args": {"blocks": 1}}}
    assert merge(BASE, other)["model"] == other["model"]
    same = {"model": {"class_path": MIMDIT, "init_args": {"branch": {"heads": 2}}}}
    assert merge(BASE, same)["model"]["init_args"] == {
        "branch": {"width": 80, "heads": 2},
        "backbone": "nano",
    }


@pytest.mark.parametrize(
    ("system", "dropped"),
    [
        (MIMDIT, []),
        (CONTROLNET, ["RoutingHistograms", "RoutingPictures"]),
        (REGRESSION, ["LossByTime", "RoutingHistograms", "RoutingPictures"]),
    ],
)
def test_callbacks_that_find_nothing_are_left_out(system, dropped):
    settings = {"model": {"init_args": {"versions": ["restored"]}}}
    values, left_out = whole(BASE, settings, {"model": {"class_path": system}}, None, "x")
    kept = ["LossByTime", "RoutingHistograms", "RoutingPictures", "ResultTable"]
    assert left_out == dropped
    assert names(values) == ["TrainingTime", *(name for name in kept if name not in dropped)]
    assert ("init_args" in values["model"]) == (system == MIMDIT), "the settings' too are replaced"


def test_a_budget_of_time_takes_the_place_of_steps():
    values, _ = whole(BASE, {}, {"trainer": {"max_steps": 50}}, 15, "x")
    assert (values["trainer"]["max_steps"], values["trainer"]["max_epochs"]) == (-1, -1)
    assert budget_of(values) == 15 and values["trainer"]["callbacks"][0]["class_path"] == WATCH
    values, _ = whole(BASE, {}, {}, None, "x")
    assert values["trainer"]["max_steps"] == 9 and budget_of(values) is None


def test_time_decides_whether_a_run_is_done():
    timed, _ = whole(BASE, {}, {}, 2, "x")
    assert unfinished({"steps": 1, "seconds": 120.0}, timed) is None
    assert unfinished({"steps": 99, "seconds": 119.0}, timed) == (
        "stopped after 119 of 120 s of training"
    )
    steps, _ = whole(BASE, {}, {}, None, "x")
    assert unfinished({"steps": 9, "seconds": 0.1}, steps) is None
    assert unfinished({"steps": 8, "seconds": 9e9}, steps) == "stopped at step 8 of 9"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Regression", "x: model: class_path is 'Regression', and it cannot be imported"),
        ("lit_mimdit.systems.regression.Regresion", "has no attribute 'Regresion'"),
        ("lit_mimdit.systems.base.plain", "and that is no class"),
        ("pathlib.Path", "model.class_path is 'pathlib.Path', which is no system"),
        (None, "x: model.class_path is missing"),
    ],
)
def test_a_class_that_is_no_system_is_named(path, message):
    with pytest.raises(ValueError, match=r"^x: ") as error:
        system_of({"model": {"class_path": path}}, "x")
    assert message in str(error.value) and "\n" not in str(error.value)


def write(path: Path, values: dict) -> None:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


def test_only_the_sections_that_a_variant_takes_count(tmp_path):
    experiment = {"model": {"class_path": REGRESSION}, "data": {"a": 1}, "trainer": {"b": 2}}
    write(tmp_path / "own.yaml", experiment)
    assert Variant("own.yaml", take=["model"]).read(tmp_path) == {"model": experiment["model"]}
    assert Variant("own.yaml").read(tmp_path) == experiment
    with pytest.raises(ValueError, match="no section 'modle' to take; it has data, model, trainer"):
        Variant("own.yaml", take=["modle"]).read(tmp_path)
    with pytest.raises(ValueError, match="but no file is given"):
        Variant(take=["model"])


def test_lines_that_name_a_class_stay_lines(tmp_path):
    """The reader of typed values would build a system of them."""
    write(tmp_path / "base.yaml", BASE)
    tool = {"model": {"class_path": CLASSICAL, "init_args": {"method": "median"}}}
    values = {"base": "base.yaml", "full": "full", "seeds": [0], "metrics": ["psnr"]}
    write(tmp_path / "study.yaml", values | {"variants": {"full": {}, "tool": {"lines": tool}}})
    assert read_study(tmp_path / "study.yaml").variants["tool"].lines == tool


@pytest.mark.parametrize(
    ("minutes", "trainer", "message"),
    [
        (15, {"max_steps": 5}, "minutes and settings.trainer.max_steps are both given"),
        (-1, {}, "minutes is -1.0: it must be more than 0"),
    ],
)
def test_a_budget_that_makes_no_sense_is_named(minutes, trainer, message, tmp_path):
    write(tmp_path / "base.yaml", BASE)
    values = {"base": "base.yaml", "full": "full", "variants": {"full": {}}, "seeds": [0]}
    values |= {"metrics": ["psnr"], "minutes": minutes, "settings": {"trainer": trainer}}
    write(tmp_path / "study.yaml", values)
    with pytest.raises(ValueError, match="study.yaml") as error:
        read_study(tmp_path / "study.yaml")
    assert message in str(error.value)


STAGE = {"name": "stage1", "gives": "model.init_args.first_stage", "share": 0.5}


@pytest.mark.parametrize(
    ("before", "minutes", "message"),
    [
        ([STAGE | {"share": 1.5}], 15, "before.share is 1.5: it must lie between 0 and 1"),
        ([STAGE, STAGE | {"name": "b"}], 15, "before.share are [0.5, 0.5]: they leave nothing"),
        ([STAGE | {"share": 0.2}] * 2, 15, "before.name are ['stage1', 'stage1']: give each"),
        ([STAGE | {"name": "a/b"}], 15, "before.name is 'a/b', and it names a folder"),
        ([STAGE | {"gives": "data.root"}], 15, "before.gives is 'data.root': it is a key of the"),
        ([STAGE], None, "share of stage1 is 0.5, and minutes is None; a share is one of minutes"),
        ([STAGE | {"share": None}], 15, "share of stage1 is None, and minutes is 15"),
        ([STAGE | {"file": "gone.yaml"}], 15, "names gone.yaml, and there is no"),
    ],
)
def test_trainings_that_come_first_and_make_no_sense_are_named(before, minutes, message, tmp_path):
    write(tmp_path / "base.yaml", BASE)
    values = {"base": "base.yaml", "full": "full", "seeds": [0], "metrics": ["psnr"]}
    values |= {"variants": {"full": {}, "two": {"before": before}}, "minutes": minutes}
    write(tmp_path / "study.yaml", values)
    with pytest.raises(ValueError, match="study.yaml") as error:
        read_study(tmp_path / "study.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_full_model_has_one_training():
    stage = EarlierRun(**STAGE)
    with pytest.raises(ValueError, match="without file, lines and before"):
        Study("base.yaml", "full", {"full": Variant(before=[stage])}, [0], ["psnr"], minutes=15)


def test_a_system_that_is_not_trained_is_only_tested(tmp_path):
    write(tmp_path / "base.yaml", BASE)
    tool = {"model": {"class_path": CLASSICAL, "init_args": {"method": "median"}}}
    variants = {"full": Variant(), "tool": Variant(lines=tool)}
    study = Study("base.yaml", "full", variants, [0], ["psnr"])
    left_out = freeze(study, tmp_path / "study.yaml", tmp_path)
    assert left_out == {"tool": ["LossByTime", "RoutingHistograms", "RoutingPictures"]}
    frozen = tmp_path / FROZEN / "whole_tool.yaml"
    assert yaml.safe_load(frozen.read_text())["model"] == tool["model"]
    for name, commands in {"full": {"fit", "test"}, "tool": {"test"}}.items():
        run = Run(name, 0, tmp_path)
        run.write_plan(study)
        assert yaml.safe_load((run.folder / "plan.json").read_text()).keys() == commands


def test_every_run_writes_what_the_study_reads():
    """A base without the table of scores, or with `logger: false`, would be trained in vain."""
    base = {"model": BASE["model"], "trainer": {"max_steps": 9, "logger": False}}
    values, _ = whole(base, {}, {}, None, "x")
    assert names(values) == ["TrainingTime", "ResultTable"]
    assert values["trainer"]["logger"]["class_path"].endswith("CSVLogger")
    own = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger"}
    kept, _ = whole(BASE, {"trainer": {"logger": own}}, {}, None, "x")
    assert kept["trainer"]["logger"] == own and names(kept).count("ResultTable") == 1


def test_a_log_holds_every_name_whatever_the_console(tmp_path, monkeypatch):
    """A console of code page 1252 has no Chinese letter; the log of a run is a file in UTF-8."""
    monkeypatch.setattr("lit_mimdit.ablation.run.run", lambda folder: print("日本") or 0)
    with (
        open(tmp_path / "out", "w", encoding="cp1252") as out,
        open(tmp_path / "err", "w", encoding="cp1252") as err,
    ):
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as ended:
            run_logged(tmp_path)
    assert ended.value.code == 0
    assert (tmp_path / LOG).read_text(encoding="utf-8").split() == [*START.split(), "日本"]
