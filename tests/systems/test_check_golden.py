"""The checker of golden files finds what is wrong and what is missing."""

import json
import sys
from pathlib import Path

import check_golden
import pytest
import torch
from check_golden import Golden, Report, float32_tolerance, gradient_norms, numbers, rates
from filling import fill, picture
from safetensors.torch import save_file


def report(**facts) -> Report:
    return Report({"output": torch.ones(3), "state.weight": torch.ones(2)}, facts, quiet=True)


def test_what_is_within_tolerance_is_well():
    one = report(loss=2.0, norm=None)
    one.tensor("output", torch.ones(3) + 1e-7, 1e-6)
    one.number("loss", 2.0 + 1e-9, 1e-9)
    one.number("norm", None, 1e-9)
    assert one.finish() and one.compared == 3


@pytest.mark.parametrize(
    "ours", [torch.ones(3) + 2e-6, torch.tensor([1.0, 1.0, float("nan")]), torch.ones(3, 1)]
)
def test_a_difference_a_nan_and_a_shape_are_failures(ours, capsys):
    one = report()
    one.tensor("output", ours, 1e-6)
    assert not one.finish()
    assert "WRONG output" in capsys.readouterr().out


@pytest.mark.parametrize(("ours", "stored"), [(2.1, 2.0), (None, 2.0), (2.0, None), (1e-3, 0.0)])
def test_a_wrong_number_is_a_failure(ours, stored):
    one = report(loss=stored)
    one.given("output")
    one.number("loss", ours, 1e-9)
    assert not one.finish()


def test_what_is_left_out_is_a_failure_unless_a_reason_is_given(capsys):
    one = report(loss=1.0)
    one.given("output")
    assert not one.finish()
    assert "WRONG loss  neither compared nor excused" in capsys.readouterr().out
    one.skip("loss", "its sign is not known")
    assert one.finish()
    assert "not compared: loss: its sign is not known" in capsys.readouterr().out


def test_every_number_of_the_json_has_a_path():
    found = dict(numbers({"a": {"b": [1, None]}, "c": 2.5, "d": "text", "e": True}))
    assert found == {"a/b/0": 1, "a/b/1": None, "c": 2.5}


@pytest.mark.parametrize(
    ("system", "stem", "known"),
    [
        ("DGUNet_plus", "x", "dgunet"),
        ("DA-CLIP", "x", "daclip"),
        (None, "PromptIR_other", "promptir"),
    ],
)
def test_the_system_comes_from_the_metadata_or_the_name(system, stem, known):
    info = {"system": system} if system else {}
    assert Golden({}, info, Path(f"{stem}.safetensors")).system == known


def test_schedules_are_compared_or_their_absence_is_said():
    golden = Golden({}, {}, Path("x"), {"X": [0.0, 1.0, 2.0]})
    one = report()
    one.given("output")
    rates(golden, one, "X", float)
    assert one.finish()
    rates(golden, one, "X", lambda epoch: 1.01 * epoch)
    assert not one.finish()
    golden.schedules = None
    other = report()
    other.given("output")
    rates(golden, other, "X", float)
    assert other.finish() and "schedules.json/X" in other.skipped


def test_the_tolerance_grows_with_the_values():
    assert float32_tolerance(torch.ones(1), 1e-5) == pytest.approx(5e-5)
    assert float32_tolerance(10 * torch.ones(1), 1e-5, torch.ones(1)) == pytest.approx(5e-4)
    assert float32_tolerance(torch.ones(1), 0.0) == 16 * 2.0**-23


def test_gradients_that_do_not_arrive_are_none():
    a, b = (torch.tensor([3.0, 4.0], requires_grad=True) for _ in range(2))
    assert gradient_norms(a.square().sum(), {"a": a, "b": b}) == {"a": 10.0, "b": None}


def test_the_exit_status_says_it(tmp_path, monkeypatch, capsys):
    path = tmp_path / "Nobody_small.safetensors"
    save_file({"output": torch.ones(1)}, path, {"golden": json.dumps({"system": "Nobody"})})
    monkeypatch.setattr(sys, "argv", ["check_golden.py", str(path)])
    assert check_golden.main() == 1
    assert "no comparison for 'nobody'" in capsys.readouterr().out


def test_the_filling_rule_is_that_of_the_golden_files(monkeypatch):
    if not (check_golden.SHARED / "goldfill.py").is_file():
        pytest.skip("goldfill.py is not in ../shared/systems, so the rule is not compared")
    monkeypatch.syspath_prepend(str(check_golden.SHARED))
    import goldfill

    shapes = {
        "a.weight": (4, 3, 3, 3),
        "a.bias": (4,),
        "norm.weight": (4,),
        "act.weight": (1,),
        "bn.running_mean": (4,),
        "bn.running_var": (4,),
        "bn.num_batches_tracked": (),
        "E.queue": (4, 6),
        "E.queue_ptr": (1,),
        "attn.temperature": (2, 1, 1),
        "r0": (1,),
        "basic.r1": (1,),
        "prompt_param": (1, 2, 3, 4, 4),
        "attn.task_query": (1, 4, 6),
        "x.CA.conv_du.0.weight": (2, 4, 1, 1),
    }
    for name, shape in shapes.items():
        theirs = torch.from_numpy(goldfill.fill(7, name, shape, 0.8))
        assert torch.equal(fill(7, name, shape, 0.8), theirs), name
    theirs = torch.from_numpy(goldfill.image(7, "input", (1, 3, 4, 4), -1.0, 1.0))
    assert torch.equal(picture(7, "input", (1, 3, 4, 4), -1.0, 1.0), theirs)
