"""Published files are opened, recognised and loaded, or refused in one line."""

import json
import pickle
import warnings

import check_golden
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lit_mimdit.systems.official import choose, listed, load_strictly, read, unwrap
from lit_mimdit.systems.promptir.official import from_official
from lit_mimdit.systems.recognition import demand, seems_to_be


def refusal(call, *arguments, **more) -> str:
    with pytest.raises(ValueError) as caught:
        call(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Code:
    def __reduce__(self):
        return print, ("this must not run",)


def test_files_are_read_in_every_ending(tmp_path):
    state = {"a": torch.arange(3.0)}
    for name in ("net.pth", "net.ckpt", "net"):
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / name)
        assert torch.equal(read(tmp_path / name)["state_dict"]["a"], state["a"])
    save_file(state, tmp_path / "net.safetensors")
    assert torch.equal(read(tmp_path / "net.safetensors")["a"], state["a"])


def test_broken_files_are_refused_in_one_line(tmp_path, capsys):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "net.pth")
    save_file({"a": torch.zeros(1000)}, tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:700])
        assert "cut off or no checkpoint" in refusal(read, path)
    torch.save({"a": Code()}, tmp_path / "code.pth")
    assert "needs code" in refusal(read, tmp_path / "code.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Code()))
    assert "needs code" in refusal(read, tmp_path / "plain.pth")
    assert "this must not run" not in capsys.readouterr().out
    (tmp_path / "new.pth").write_bytes(pickle.dumps(Code(), protocol=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # would be a second line
        assert "needs code" in refusal(read, tmp_path / "new.pth")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    refusal(read, tmp_path / "page.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    refusal(read, tmp_path / "empty.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    assert "holds a Tensor instead of named tensors" in refusal(read, tmp_path / "tensor.pth")
    assert "cannot be opened" in refusal(read, tmp_path / "nowhere.pth")


def test_a_file_that_ends_anywhere_is_called_cut_off(tmp_path):
    """torch has a reader for each of its two formats; the older one raises many types."""
    state = {"state_dict": {"layer.weight": torch.randn(3, 5), "layer.bias": torch.randn(3)}}
    for zipped in (False, True):
        path = tmp_path / f"whole_{zipped}.pth"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        assert read(path)["state_dict"].keys() == state["state_dict"].keys()
        content = path.read_bytes()
        for end in {*range(1, len(content), 7), 2, 3, len(content) - 1}:
            (tmp_path / "part.pth").write_bytes(content[:end])
            assert "cut off or no checkpoint" in refusal(read, tmp_path / "part.pth"), end


def test_wrapping_and_prefixes_come_off():
    state = {"a.weight": torch.ones(1), "b": torch.zeros(1)}
    prefixed = {f"module.net.{name}": value for name, value in state.items()}
    for file in (
        state,
        prefixed,
        {"state_dict": prefixed, "epoch": 3},
        {"params": {"a": torch.zeros(9)}, "params_ema": state},
        {"ema": {"state_dict": prefixed}, "model": {"a": torch.zeros(9)}},
    ):
        assert unwrap(file) == state
    # a prefix that some names lack belongs to the names
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert unwrap(mixed) == mixed
    assert "no tensors in this file (it holds epoch, x)" in refusal(unwrap, {"epoch": 3, "x": {}})


NAMES = {
    "AirNet": "AirNet",
    "DGUNet": "DGUNet",
    "DGUNetPlus": "DGUNet+",
    "TransWeather": "TransWeather",
    "PromptIR": "PromptIR",
    "DiffIR": "DiffIR, stage 1",
    "DiffUIR": "DiffUIR or FoundIR's generalist",
    "FoundIR": "DiffUIR or FoundIR's generalist",
    "autodir": "AutoDIR",
    "daclip": "DA-CLIP's controller",
    "dit4sr": "DiT4SR",
}


@pytest.mark.parametrize("system", NAMES)
def test_every_system_is_recognised_and_refused_as_another(system):
    path = check_golden.SHARED / f"{system}_keys.json"
    if not path.is_file():
        pytest.skip(f"{path} is not here, so no official names are at hand")
    content = json.loads(path.read_text())
    keys = content.get("keys") or content.get("all") or content.get("daclip_ViT-B-32")
    if isinstance(keys, dict) and system in ("DiffIR", "DiffUIR", "FoundIR"):
        keys = next(iter(keys.values()))
    names = dict.fromkeys(
        entry["key"] if isinstance(entry, dict) else entry[0] if isinstance(entry, list) else entry
        for entry in keys
    )
    assert seems_to_be(names) == NAMES[system]
    other = "PromptIR" if system != "PromptIR" else "AirNet"
    assert f"it seems to be {NAMES[system]};" in refusal(demand, names, other)
    demand(names, NAMES[system])


def test_strangers_are_refused():
    assert "no known system has names such as conv.weight" in refusal(
        demand, {"conv.weight": 0}, "AirNet"
    )
    assert "not a checkpoint of PromptIR: it seems to be AirNet" in refusal(
        from_official, {"R.head.0.weight": torch.ones(1), "E.E.encoder_q.E_pre.x": torch.ones(1)}
    )


def test_a_network_with_ffdnets_names_is_not_ffdnet():
    """A denoiser for colour, DnCNN, has the same names; its first layer sees 3 channels."""
    names = dict.fromkeys(["model.0.bias", "model.2.weight", "model.4.weight"], torch.zeros(4))
    for channels, known in {3: None, 5: "FFDNet", 13: "FFDNet"}.items():
        state = names | {"model.0.weight": torch.zeros(4, channels, 3, 3)}
        assert seems_to_be(state) == known
    dncnn = names | {"model.0.weight": torch.zeros(4, 3, 3, 3)}
    assert "no known system has names such as" in refusal(demand, dncnn, "FFDNet")


def test_a_part_of_a_system_is_recognised():
    part = dict.fromkeys(["R.head.0.weight", "R.body.0.weight"])
    end = "it seems to be AirNet, cut off, since no name begins with E.E.encoder_q.E_pre.; fetch"
    assert end in refusal(demand, part, "AirNet") and end in refusal(demand, part, "DGUNet")
    # what PromptIR and Restormer share is taken for what was asked for
    restormer = "Restormer or FoundIR's weather specialist"
    shared = dict.fromkeys(["encoder_level1.0.norm1.body.weight"])
    assert "seems to be PromptIR, cut off" in refusal(demand, shared, "PromptIR")
    assert f"seems to be {restormer}, cut off" in refusal(demand, shared, restormer)


def test_names_and_shapes_must_fit_and_nothing_is_loaded_otherwise():
    network = nn.Linear(2, 3)
    before = network.weight.clone()
    full = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}
    message = refusal(load_strictly, network, {"weight": full["weight"]}, "X")
    assert message == "X: 1 names are missing: bias; the file seems cut off, so fetch it again"
    message = refusal(load_strictly, network, full | {"extra": torch.ones(1)}, "X")
    assert "1 names are unexpected: extra" in message and "another version" in message
    message = refusal(load_strictly, network, full | {"weight": torch.ones(2, 2)}, "X")
    assert "1 shapes differ: weight (2, 2) instead of (3, 2)" in message
    assert torch.equal(network.weight, before)
    load_strictly(network, full | {"extra": torch.ones(1)}, "X", dead=lambda name: name == "extra")
    assert torch.equal(network.weight, full["weight"])


def test_overrides_are_known_and_consistent():
    published, found = {"dim": 48, "depth": 5}, {"dim": 8}
    assert choose("X", published, found, {}) == {"dim": 8, "depth": 5}
    assert choose("X", published, found, {"depth": 2}) == {"dim": 8, "depth": 2}
    assert "no argument width; the official constructor has dim, depth" in refusal(
        choose, "X", published, found, {"width": 3}
    )
    assert "dim=9 contradicts the checkpoint, whose tensors say 8" in refusal(
        choose, "X", published, found, {"dim": 9}
    )


@pytest.mark.parametrize(
    ("usual", "good", "bad"),
    [
        (True, False, 1),
        (4, 2, True),
        (2.66, 2, "2"),
        ("WithBias", "BiasFree", 3),
        ((1, 2), [3, 4], 3),
        (None, 3, None),
    ],
)
def test_an_override_is_of_the_kind_of_the_published_value(usual, good, bad):
    assert choose("X", {"a": usual}, {}, {"a": good}) == {"a": good}
    if bad is not None:
        expected = f"X: a={bad!r} is no value such as {usual!r}; give one"
        assert refusal(choose, "X", {"a": usual}, {}, {"a": bad}) == expected


def test_long_lists_are_counted():
    assert listed(list("abc"), 2) == "a, b and 1 more"
    assert listed(list("abc")) == "a, b, c"
