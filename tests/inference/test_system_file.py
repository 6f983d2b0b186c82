"""Files of trained systems: what is read, and what is refused in one line."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from lit_mimdit import cli
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_class import state_of
from lit_mimdit.inference.system_file import KEY, SystemFile, load_system, save_system
from lit_mimdit.models.backbone import Identity
from lit_mimdit.renamed import RENAMED, reading_old_names, with_new_names
from lit_mimdit.systems.regression import Regression

SMALL = {"widths": [4], "blocks": 1}


def regression_file(**changes) -> SystemFile:
    torch.manual_seed(0)
    tensors = state_of(Regression(**SMALL).trained)
    values = {"class_path": "lit_mimdit.systems.regression.Regression", "arguments": SMALL}
    return SystemFile(**(values | {"tensors": tensors} | changes))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"class_path": "os.path.PathLike"}, "is not one of lit_mimdit.systems.*give --trust"),
        ({"class_path": "lit_mimdit.systems.nowhere.X"}, "cannot be imported .*newer version"),
        ({"class_path": "lit_mimdit.systems.regression.Y"}, "cannot be imported"),
        ({"class_path": "lit_mimdit.systems.optim.configure"}, "it is no class; derive"),
        ({"arguments": SMALL | {"depth": 3}}, "another version .*depth.*export the system again"),
        ({"arguments": SMALL | {"blocks": "x"}}, 'key "blocks": .*export the system again'),
        (
            {"arguments": {"widths": [5], "blocks": 1}},
            "that it describes.*of another shape.*export",
        ),
        ({"tensors": {}}, "missing"),
        ({"tensors": {"extra": torch.zeros(1)}}, "missing.*1 unknown"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, change, message):
    save_system(tmp_path / "x.safetensors", regression_file(**change))
    with pytest.raises(ValueError, match=message) as caught:
        load_restorer(tmp_path / "x.safetensors", device="cpu")
    said = str(caught.value)
    assert "x.safetensors" in said and "\n" not in said


def test_a_class_without_the_three_methods_is_named(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Half:\n    losses = restorer = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    save_system(tmp_path / "x.safetensors", regression_file(class_path="mine.Half"))
    with pytest.raises(ValueError, match="mine.Half is no restoration system: it has no trained"):
        load_restorer(tmp_path / "x.safetensors", device="cpu", trust=True)


def test_a_trusted_class_of_a_user_restores(tmp_path, monkeypatch):
    (tmp_path / "own_system.py").write_text(
        "from lit_mimdit.systems.regression import Regression\n\n\n"
        "class Own(Regression):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    save_system(tmp_path / "x.safetensors", regression_file(class_path="own_system.Own"))
    image = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    restorer = load_restorer(tmp_path / "x.safetensors", device="cpu", trust=True)
    assert restorer(image, torch.zeros(1))[0].shape == image.shape
    with pytest.raises(ValueError, match="give --trust"):
        load_restorer(tmp_path / "x.safetensors", device="cpu")


@pytest.mark.parametrize(
    "kind, message",
    [
        ("lit_mimdit.system.2", "newer version"),
        ("other", "give an exported system"),
        (None, "None"),
    ],
)
def test_unknown_formats(tmp_path, kind, message):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, {KEY: json.dumps({"format": kind})})
    with pytest.raises(ValueError, match=message):
        load_system(path)


def test_a_value_that_a_system_lacks_is_named(tmp_path):
    save_system(tmp_path / "x.safetensors", regression_file())
    for option, name in (({"steps": 3}, "steps"), ({"prompt": "rain"}, "prompt")):
        with pytest.raises(ValueError, match=f"{name} is given, but Regression has no {name}"):
            load_restorer(tmp_path / "x.safetensors", device="cpu", **option)
    restorer = load_restorer(tmp_path / "x.safetensors", device="cpu", tile=64, overlap=8)
    assert (restorer.tile, restorer.overlap) == (64, 8)


def test_files_of_the_format_before_are_read(branch_file, tmp_path):
    now = load_system(branch_file)
    before = {
        "format": "lit_mimdit.branch.1",
        "network": "mim",
        "branch": now.arguments["branch"],
        "sampling": now.sampling,
        "backbone": asdict(now.backbone),
        "prompt": now.prompt,
    }
    save_file(now.tensors, tmp_path / "before.safetensors", {KEY: json.dumps(before)})
    assert load_system(tmp_path / "before.safetensors").description() == now.description()
    image = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    made = [
        load_restorer(path, device="cpu")(image, torch.tensor([3]))[0]
        for path in (branch_file, tmp_path / "before.safetensors")
    ]
    assert torch.equal(*made)


def test_integers_keep_their_type_and_a_shared_parameter_stands_once(tmp_path):
    module = torch.nn.Module()
    module.first = module.second = torch.nn.Linear(2, 2)
    module.norm = torch.nn.BatchNorm2d(3)
    state = state_of(module)
    assert "second.weight" not in state and "norm.num_batches_tracked" in state
    identity = Identity("nano", "0" * 16, "1" * 16)
    file = regression_file(tensors=state, backbone=identity, sampling={"steps": 2}, prompt="x")
    save_system(tmp_path / "x.safetensors", file, torch.float16)
    back = load_system(tmp_path / "x.safetensors")
    assert back.tensors["norm.num_batches_tracked"].dtype == torch.int64
    assert back.tensors["first.weight"].dtype == torch.float16
    assert back.description() == file.description()


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_old_class_paths_are_read_as_the_new_ones(old):
    load = reading_old_names(yaml.safe_load)
    new = RENAMED[old]
    assert load(f"model:\n  class_path: {old}  # as it was\n") == {"model": {"class_path": new}}
    module, _, name = new.rpartition(".")
    assert hasattr(__import__(module, fromlist=[name]), name)
    assert with_new_names(new) == new and with_new_names(f"{old}Two") == f"{old}Two"


def test_commands_read_old_yamls_and_say_the_new_name_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lit_mimdit.renamed._told", set())
    text = Path("experiments/quickstart.yaml").read_text(encoding="utf-8")
    old = "lit_mimdit.training.module.MiMDiTModule"
    new = RENAMED[old]
    assert new in text
    path = tmp_path / "old.yaml"
    path.write_text(text.replace(new, old), encoding="utf-8")
    args = ["fit", "-c", str(path), "--model", old, "--print_config"]
    with pytest.raises(SystemExit) as end:
        cli.main(args)
    said = capsys.readouterr()
    assert end.value.code in (0, None) and f"class_path: {new}" in said.out
    assert old not in said.out and said.err.count(f"{old} is now {new}; change the name") == 1
