"""The checker of golden files finds what is wrong and what is missing."""

import json
import sys
from pathlib import Path

import check_golden
import pytest
import torch
from filling import fill, picture
from golden_file import Absent, Golden, Named, lists, numbers
from golden_measures import gradient_norms, rates, tied
from golden_report import MOST, Report, float32_tolerance, twice
from safetensors.torch import save_file


def report(texts=None, **facts) -> Report:
    return Report({"output": torch.ones(3)}, facts, texts or {}, quiet=True)


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
    assert "WRONG loss: neither compared nor excused" in capsys.readouterr().out
    one.skip("loss", "its sign is not known")
    assert one.finish()
    assert "not compared: loss: its sign is not known" in capsys.readouterr().out


def test_what_the_file_lacks_is_one_line(capsys):
    one = report()
    one.tensor("output", torch.ones(3), 0)
    for _ in range(2):
        one.tensor("other", torch.ones(3), 0)
        one.near("next", torch.ones(3), 0)
    one.number("loss", 1.0, 0)
    one.names("dead", [])
    one.given("input")
    assert not one.finish()
    said = capsys.readouterr().out.splitlines()
    assert said[:-1] == [
        f"WRONG {name}: not in the file" for name in ("other", "next", "loss", "dead", "input")
    ]


def test_an_absent_input_ends_its_part_alone(capsys):
    golden = Golden(Named(output=torch.ones(3)), Named(sizes=Named(a=1)), Path("x"))
    one = report()
    with one.part():
        one.tensor("output", golden.real("input"), 0)
    with one.part():
        one.tensor("output", torch.full((3,), golden.info["sizes"]["b"]), 0)
    assert not one.finish()
    said = capsys.readouterr().out
    assert "WRONG input: not in the file" in said and "WRONG b: not in the file" in said
    assert "WRONG output: neither compared nor excused" in said
    with pytest.raises(Absent, match="input: not in the file"):
        golden.state("x.") or golden.double("input")


def test_a_tap_without_a_module_is_said(capsys):
    one = Report({"tap.a": torch.ones(1), "tap.b.body": torch.ones(1)}, quiet=True)
    one.taps("tap.", {"a": torch.ones(1)}, 1e-6)
    assert not one.finish()
    assert capsys.readouterr().out.splitlines()[0] == "WRONG tap.b.body: no such module"


def test_names_are_compared_in_any_order_and_texts_as_they_are(capsys):
    one = report({"dead": ["a", "b"], "tied": [["c", "d"]], "kept": [["x", ""]]})
    one.given("output")
    one.names("dead", ["b", "a"])
    one.names("tied", [["d", "c"]])
    one.same("kept", [["x", ""]])
    assert one.finish()
    one.names("dead", ["b", "e"])
    one.names("tied", [])
    one.same("kept", [["x", "x"]])
    said = capsys.readouterr().out
    assert "WRONG dead: lacks ['e']; has besides ['a']" in said
    assert "WRONG tied: has besides [('c', 'd')]" in said
    assert "WRONG kept: [['x', 'x']], not [['x', '']]" in said


def test_inputs_and_dead_tensors_are_listed(capsys):
    names = [f"input{index}" for index in range(20)]
    states = ["state.used", "state.idle", "state_other.used", "state_other.idle"]
    one = Report({name: torch.ones(1) for name in [*names, *states]})
    one.given(*names)
    one.loaded(["used"], "as they act on nothing")
    assert not one.finish()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 + 2 + 2 + 1 and max(map(len, said)) <= 100
    assert said[0].startswith("input: input0, input1, ") and said[1].endswith(", input19")
    assert said[2] == "1 of the state are not loaded, as they act on nothing"
    assert said[3] == "not loaded: state.idle"
    assert said[4] == "WRONG state_other.used: neither loaded nor excused"
    one.loaded(["used"], "as they act on nothing", "state_other.")
    assert one.finish()


def shifted(golden: Golden, one: Report) -> None:
    """Adds a number that float32 rounds, far from what is stored."""
    value = torch.tensor([1.0, 1e4 / 3], dtype=golden.dtype)
    one.tensor("output", value, 1e-6)
    one.near("far", value + 1e-3, 1e-9)
    one.table("schedule", value)
    one.table("cancelled", (value + 1e5) - 1e5)  # five times what float32 loses is above its error


def test_float32_widens_a_tolerance_where_it_rounds_more(capsys):
    exact = torch.tensor([1.0, 1e4 / 3], dtype=torch.float64)
    rounding = float((exact.float().double() - exact).abs().max())
    assert 1e-6 < rounding < 1e-3 / 5
    tensors = Named(output=exact + 5e-6, far=exact.float(), schedule=(1 + 2e-6) * exact)
    tensors["cancelled"] = tensors["schedule"]
    golden, one = Golden(tensors, {}, Path("x")), Report(dict(tensors))
    twice(golden, one, shifted)
    said = capsys.readouterr().out
    assert f"ok    output: difference 5.00e-06, tolerance {MOST * 1e-6:.1e}" in said
    assert "WRONG far" in said and "WRONG schedule" in said
    assert "WRONG cancelled" in said, "rounding widens no table"
    alone = Report(dict(tensors), quiet=True)
    shifted(golden, alone)
    assert "output" in alone.failures


def test_every_number_of_the_json_has_a_path():
    found = dict(numbers({"a": {"b": [1, None]}, "c": 2.5, "d": "text", "e": True}))
    assert found == {"a/b/0": 1, "a/b/1": None, "c": 2.5}
    assert dict(lists({"a": {"b": []}, "c": [["d"]]}, "x")) == {"x/a/b": [], "x/c": [["d"]]}


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


def test_shared_parameters_are_one_group():
    one, other = torch.nn.PReLU(), torch.nn.PReLU()
    network = torch.nn.ModuleList([one, other, one])
    assert tied(network, lambda name: f"net.{name}") == [["net.0.weight", "net.2.weight"]]


def test_a_file_that_cannot_be_read_does_not_stop_the_next(tmp_path, monkeypatch, capsys):
    paths = [tmp_path / f"{name}.safetensors" for name in ("damaged", "other", "last")]
    for path, info in zip(paths, ([], {"system": "PromptIR"}, {"system": "Nobody"})):
        save_file({"output": torch.ones(1)}, path, {"golden": json.dumps(info)})
    monkeypatch.setattr(sys, "argv", ["check_golden.py", *map(str, paths)])
    assert check_golden.main() == 1
    said = capsys.readouterr()
    assert f"WRONG {paths[0]}: AttributeError: 'list' object" in said.out
    assert "WRONG config: not in the file" in said.out and "no comparison for 'nobody'" in said.out
    assert "Traceback" in said.err


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
