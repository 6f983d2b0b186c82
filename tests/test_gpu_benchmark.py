"""benchmarks/gpu.py: its plan fits into ten minutes, and its parts run small on a CPU."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gpu


def test_the_plan_fits_into_ten_minutes_and_has_one_file_a_part():
    for tiny in (False, True):
        plan = gpu.parts(tiny)
        assert sum(part.limit for part in plan) < 600
        assert len({part.name for part in plan}) == len(plan)
        assert all(
            (gpu.ROOT / part.command[0]).is_file() or part.name == "test_cuda" for part in plan
        )


@pytest.mark.usefixtures("processes")
def test_a_part_that_fails_or_takes_too_long_is_named_and_ends_nothing(
    tmp_path, monkeypatch, capsys
):
    plan = [
        gpu.Part("fails", ("-c", "raise SystemExit(3)"), 60),
        gpu.Part("hangs", ("-c", "import time; time.sleep(60)"), 1),
        gpu.Part("works", ("-c", "print(42)"), 60),
    ]
    monkeypatch.setattr(gpu, "parts", lambda tiny: plan)
    assert gpu.main(["-o", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert "fails: exit status 3" in said and "hangs: stopped after 1 s" in said
    assert "42" in (tmp_path / "works.txt").read_text() and "1 of 3 parts are ok" in said


@pytest.mark.usefixtures("processes", "takes_minutes")
def test_the_whole_plan_runs_small(tmp_path):
    assert gpu.main(["-o", str(tmp_path), "--tiny"]) == 0
    for name in ("step_batch_1", "sparse"):
        assert "| " in (tmp_path / f"{name}.txt").read_text()
