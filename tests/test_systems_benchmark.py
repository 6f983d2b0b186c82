"""benchmarks/systems.py: every recipe of the table, a row that runs small, and one that cannot."""

import argparse
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import systems


def options(name: str, part: str, **changes) -> argparse.Namespace:
    values = {"size": 64, "steps": 1, "rounds": 1, "small": True, "memory": 100.0}
    values |= {"alone": (name, part), "device": torch.device("cpu")}
    return argparse.Namespace(**values | changes)


STEPS = {"MiM-DiT": 40, "ControlNet": 40, "DiffUIR": 3, "FoundIR": 4, "DA-CLIP": 100}
STEPS |= {"AutoDIR": 100, "DiT4SR": 80}  # with guidance, two evaluations a step


@pytest.mark.parametrize("name", ["MiM-DiT", "DiffUIR", "FoundIR", "DA-CLIP", "DiT4SR", "PromptIR"])
def test_a_recipe_is_the_published_one_with_few_steps(name):
    recipe = systems.recipe_of(name, 512, 2, False)
    assert recipe.steps == STEPS.get(name, 0)
    asked = recipe.arguments.get("steps") or getattr(recipe.arguments.get("sampling"), "steps", 2)
    assert asked == 2 and recipe.crop == 512


def test_a_part_runs_small_and_counts_what_was_not_timed():
    found = systems.one(options("DiffUIR", "restoration"))
    assert found["steps"] == 3 and found["parameters"] == pytest.approx(2.59, abs=0.01)
    # one of three evaluations was timed
    assert 0 < found["evaluation"] < 3 * found["evaluation"] <= found["whole"]
    trained = systems.one(options("DiffUIR", "training"))
    assert trained["seconds"] > 0 and 0 < trained["needed"] < 1 < trained["peak"] * 10


@pytest.mark.parametrize("name", ["DA-CLIP", "DiffIR"])
def test_a_system_that_starts_from_a_file_trains_without_one(name):
    assert systems.one(options(name, "training"))["seconds"] > 0


def test_only_a_timed_autodir_makes_one_iteration(monkeypatch):
    seen = []

    def build(recipe):
        seen.append(systems.sampler.ITERATIONS)
        raise ValueError("enough")

    monkeypatch.setattr(systems, "build", build)
    with pytest.raises(ValueError, match="enough"):
        systems.restoration(None, 64, 1, torch.device("cpu"))
    assert seen == [1] and systems.sampler.ITERATIONS == 7


def test_what_does_not_fit_or_is_not_trained_says_so():
    small = systems.one(options("DiffUIR", "training", memory=1.05))
    assert small["reason"] == "not run" and small["needed"] > 0.05
    assert systems.one(options("AutoDIR", "training")) == {"reason": "not trained"}
    restored = {"parameters": 2.0, "steps": 3, "evaluation": 2.0, "whole": 7.0, "peak": 1.25}
    row = systems.cells("X", {"restoration": restored, "training": small}, lambda s: f"{s / 2:.2f}")
    assert row[:6] == ["X", "2.0", "3", "1.00", "3.50", "1.2"] and row[6] == "not run"
    failed = {"restoration": {"reason": "did not fit"}, "training": {"reason": "not asked"}}
    assert systems.cells("X", failed, str)[4:7] == ["did not fit", None, "not asked"]


@pytest.mark.usefixtures("processes")
def test_the_table_has_a_row_for_each(capsys):
    systems.main(["--small", "--size", "64", "--only", "AirNet"])
    lines = capsys.readouterr().out.splitlines()
    assert "bare SD3.5-medium" in lines[0] and lines[-1].endswith("of the first")
    names = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert names == ["| system", "| AirNet"]
    assert float(lines[3].split(" | ")[6]) > 0
