"""What a checkpoint holds, and which files are refused in one line."""

import errno
import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_mimdit import cli
from lit_mimdit import files as file_writing
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.inference.system_class import load_into
from lit_mimdit.inference.system_file import KEY, SystemFile, load_system, save_system
from lit_mimdit.models.backbone import Identity
from lit_mimdit.training.checkpoint import WholeFiles

HERE = Identity("nano", "0123456789abcdef", "fedcba9876543210")


@pytest.fixture
def file() -> SystemFile:
    branch = {"width": 8, "heads": 2, "groups": ["se", "swin"], "intra": {"experts": 3, "top_k": 1}}
    draw = torch.Generator().manual_seed(0)
    tensors = {
        "a.weight": torch.randn(3, 4, generator=draw),
        "a.bias": torch.randn(3, generator=draw),
    }
    sampling = asdict(SamplingConfig(steps=3, solver="heun", start="lq", strength=0.5))
    path = "lit_mimdit.systems.mimdit.MiMDiT"
    return SystemFile(path, {"branch": branch}, tensors, HERE, sampling, "rain")


def test_an_exported_branch_comes_back_whole(file, tmp_path):
    save_system(tmp_path / "new" / "branch.safetensors", file)
    back = load_system(tmp_path / "new" / "branch.safetensors")
    assert back.description() == file.description() and back.prompt == "rain"
    assert back.tensors.keys() == file.tensors.keys()
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in file.tensors.items())
    save_system(tmp_path / "half.safetensors", file, torch.float16)
    assert load_system(tmp_path / "half.safetensors").tensors["a.bias"].dtype == torch.float16


def write_branch(path: Path, **changes) -> Path:
    values = {
        "format": "lit_mimdit.branch.1",
        "branch": {"width": 8, "heads": 2},
        "sampling": {},
        "backbone": asdict(HERE),
    } | changes
    save_file({"a": torch.zeros(1)}, path, {KEY: json.dumps(values)})
    return path


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("payload-ran"),))


def broken_files(folder: Path) -> dict[str, Path]:
    whole = write_branch(folder / "whole.safetensors")
    (folder / "cut.safetensors").write_bytes(whole.read_bytes()[:-3])
    (folder / "empty.ckpt").touch()
    (folder / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}, "x": torch.zeros(9)}, folder / "other.ckpt")
    (folder / "cut.ckpt").write_bytes((folder / "other.ckpt").read_bytes()[:-200])
    torch.save({"state_dict": {}, "evil": Payload()}, folder / "code.ckpt")
    save_file({"a": torch.zeros(1)}, folder / "foreign.safetensors")
    save_file({"a": torch.zeros(1)}, folder / "metadata.safetensors", {KEY: "{"})
    write_branch(folder / "format.safetensors", format="lit_mimdit.branch.9")
    write_branch(folder / "key.safetensors", branch={"width": 8, "heads": 2, "depth": 3})
    write_branch(folder / "value.safetensors", sampling={"steps": 0})
    write_branch(folder / "identity.safetensors", backbone={"name": "nano"})
    return {path.name: path for path in folder.iterdir() if path != whole} | {
        "missing.ckpt": folder / "missing.ckpt"
    }


def test_broken_foreign_and_dangerous_files_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    files = broken_files(tmp_path / "x")
    assert len(files) == 13
    for name, path in files.items():
        with pytest.raises(ValueError) as caught:
            load_restorer(path, device="cpu")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), (
            name,
            str(caught.value),
        )
    assert not Path("payload-ran").exists()


def test_code_in_a_checkpoint_is_not_run_by_fit(tiny, tmp_path, capsys):
    torch.save({"state_dict": {}, "evil": Payload()}, "code.ckpt")
    assert cli.main(["fit", "-c", tiny(), "--ckpt_path", "code.ckpt"]) == 2
    assert "code.ckpt: refused" in capsys.readouterr().err.splitlines()[-1]
    assert not Path("payload-ran").exists()


def test_the_payload_of_these_tests_would_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"evil": Payload()}, "code.ckpt")
    torch.load("code.ckpt", weights_only=False)
    assert Path("payload-ran").exists()


def test_loading_names_the_keys_that_do_not_fit(file):
    module = torch.nn.Module()
    module.a = torch.nn.Linear(4, 3)
    load_into(module, file.tensors, "here")
    assert torch.equal(module.a.bias, file.tensors["a.bias"])
    for tensors, message in (
        ({"a.weight": torch.zeros(3, 4)}, "1 missing .such as a.bias"),
        (file.tensors | {"b": torch.zeros(1)}, "1 unknown .such as b"),
        (file.tensors | {"a.bias": torch.zeros(5)}, "1 of another shape .such as a.bias"),
    ):
        with pytest.raises(ValueError, match=f"here: .*{message}"):
            load_into(module, tensors, "here")
    assert torch.equal(module.a.bias, file.tensors["a.bias"])


def test_a_backbone_knows_itself_by_geometry_and_weights():
    HERE.require(replace(HERE, name="elsewhere"), "x")  # the same one in another folder
    with pytest.raises(
        ValueError, match="x: trained on backbone 'nano', which has another geometry"
    ):
        HERE.require(replace(HERE, config="0"), "x")
    with pytest.raises(ValueError, match="x: trained on other weights"):
        HERE.require(replace(HERE, weights="0"), "x")


def test_a_full_disk_leaves_the_old_checkpoint_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    path, older, files = (
        tmp_path / "folder" / "last.ckpt",
        tmp_path / "folder" / "step=1.ckpt",
        WholeFiles(),
    )
    for name in (path, older):
        files.save_checkpoint({"a": torch.ones(3)}, name)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(file_writing.os, "fsync", full)
        files.save_checkpoint({"a": torch.zeros(3), "global_step": 7}, path)
    assert re.search(
        r"WARNING: NO CHECKPOINT of step 7 .*last.ckpt: cannot be written: No space left on device",
        capsys.readouterr().err,
    )
    assert "No space left" in files.failure
    files.remove_checkpoint(older)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "last.ckpt",
        "step=1.ckpt",
    ], "nothing is removed for what was not written"
    assert torch.equal(files.load_checkpoint(path)["a"], torch.ones(3))
    files.save_checkpoint({"a": torch.zeros(3)}, path)
    files.remove_checkpoint(older)
    assert files.failure is None and [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_safetensors_hold_the_weights_under_their_branch_names(file, tmp_path):
    save_system(tmp_path / "b.safetensors", file)
    assert load_file(tmp_path / "b.safetensors").keys() == file.tensors.keys()
