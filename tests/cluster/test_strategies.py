"""ZeRO-2, ZeRO-3 and DDP on two processes follow one process; a checkpoint of any of them resumes
under any other.
"""

import json
import os
import shutil
import signal
import socket
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from kit.checkpoints import tensors
from kit.starter import said
from kit.watch import seen
from PIL import Image
from real_runs import CHECKPOINTS, HERE, SINGLE_HOST, assert_same_run

from lit_mimdit import cli
from lit_mimdit.inference.run_record import commit
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.training.callbacks.record import difference

NANO = yaml.safe_load(
    (HERE.parents[1] / "experiments" / "quickstart.yaml").read_text(encoding="utf-8")
)["model"]


def two(strategy: str) -> list[str]:
    return ["--trainer.devices", "2", "--trainer.strategy", strategy]


def assert_close(path: Path, expected: dict[str, torch.Tensor], atol: float = 2e-6) -> None:
    found = tensors(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=0, atol=atol, msg=lambda text, n=name: f"{path}: {n}: {text}"
        )


def test_two_processes_follow_one_and_every_checkpoint_resumes_everywhere(starter, tiny, tmp_path):
    """With validation in the middle of the run, for which ZeRO-3 gathers its parameters.

    What ZeRO gathers travels in many bundles, some of several parameters.
    """
    config = tiny(**{"trainer.limit_val_batches": 1, "trainer.max_steps": 5})
    starter.run(tmp_path, ["fit", "-c", config])
    one = tensors(tmp_path / CHECKPOINTS / "last.ckpt")
    for name, strategy, resumed in (
        ("ddp", "ddp", None),
        ("zero2", "zero2_cpu", None),
        ("zero3", "zero3_offload_cpu", None),
        ("zero3_from_ddp", "zero3_cpu", "ddp"),
        ("ddp_from_zero3", "ddp", "zero3"),
    ):
        start = (
            []
            if resumed is None
            else ["--ckpt_path", str(tmp_path / resumed / CHECKPOINTS / "step=3.ckpt")]
        )
        args = ["fit", "-c", config, *two(strategy), *start]
        starter.run(tmp_path / name, args, SINGLE_HOST, env={"BUNDLE": "100"})
        assert_close(tmp_path / name / CHECKPOINTS / "last.ckpt", one)


def test_photographs_are_the_same_bytes_whichever_process_restores_them(starter, tiny, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    generator = np.random.default_rng(0)
    for name, size in {"a": (24, 32), "b": (40, 21), "c": (16, 16)}.items():
        Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).save(
            photos / f"{name}.png"
        )
    config = tiny(
        **{
            "data.init_args.predict": str(photos),
            "trainer.max_steps": 2,
            "trainer.limit_val_batches": 0,
        }
    )
    starter.run(tmp_path, ["fit", "-c", config])
    predict = ["predict", "-c", config, "--ckpt_path", str(tmp_path / CHECKPOINTS / "last.ckpt")]
    starter.run(tmp_path / "one", predict)
    starter.run(tmp_path / "two", [*predict, *two("ddp")], SINGLE_HOST)
    restored = {
        n: {
            path.name: path.read_bytes()
            for path in (tmp_path / n / "runs/quickstart/restored").iterdir()
        }
        for n in ("one", "two")
    }
    assert (
        set(restored["one"]) == {"a.png", "b.png", "c.png"} and restored["two"] == restored["one"]
    )


def export(checkpoint: Path, output: Path) -> dict[str, torch.Tensor]:
    assert cli.main(["export", str(checkpoint), "-o", str(output), "--dtype", "float32"]) == 0
    return load_system(output).tensors


@pytest.mark.usefixtures("takes_minutes")
def test_nano_under_zero_has_the_losses_of_one_process_resumes_and_is_exported(
    starter, watched, tmp_path
):
    """The model that comes with the package, as experiments/quickstart.yaml trains it, on crops of
    32 px.
    """
    one = tmp_path / "one"
    args = ["fit", "-c", watched(one, model=NANO, **{"trainer.max_steps": 3})]
    starter.run(one, args)
    starter.run(tmp_path / "zero2", [*args, *two("zero2_cpu")], SINGLE_HOST)
    starter.run(tmp_path / "zero3", [*args, *two("zero3_cpu")], SINGLE_HOST)
    starter.run(
        tmp_path / "one_from_zero3",
        [*args, "--resume", str(tmp_path / "zero3" / CHECKPOINTS / "step=2.ckpt")],
    )
    losses = seen(one)
    assert len(losses) == 3 and all(len(samples) == 4 for samples in losses.values())
    for name in ("zero2", "zero3", "one_from_zero3"):
        found = seen(tmp_path / name)
        assert sorted(found) == ([3] if "from" in name else [1, 2, 3])
        for step, samples in found.items():
            assert samples == pytest.approx(losses[step], rel=1e-5), f"{name}, step {step}"
        assert_close(
            tmp_path / name / CHECKPOINTS / "last.ckpt",
            tensors(one / CHECKPOINTS / "last.ckpt"),
            atol=1e-5,
        )
    expected = export(one / CHECKPOINTS / "last.ckpt", tmp_path / "one.safetensors")
    exported = export(
        tmp_path / "zero3" / CHECKPOINTS / "last.ckpt", tmp_path / "zero3.safetensors"
    )
    assert exported.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(exported[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_the_same_command_goes_on_and_the_record_says_what_ran(
    starter, watched, undisturbed, tmp_path
):
    args = ["fit", "-c", watched(tmp_path)]
    pid = starter.start(tmp_path, args, env={"HALT": "0:3"})
    os.kill(starter.halted(pid, tmp_path), signal.SIGKILL)
    assert starter.wait(pid) == -signal.SIGKILL
    starter.run(tmp_path, args)
    assert_same_run(tmp_path, undisturbed, atol=0)
    first, second = (
        json.loads((tmp_path / f"runs/quickstart/version_{i}/run.json").read_text()) for i in (0, 1)
    )
    assert (
        first["resumed_from"] is None
        and Path(second["resumed_from"]).parent == tmp_path / CHECKPOINTS
    )
    assert (
        second["command"][1:] == args
        and second["processes"] == 1
        and second["nodes"] == [socket.gethostname()]
    )
    assert (
        second["commit"] == commit()
        and (tmp_path / "runs/quickstart/version_1/run.diff").read_text() == difference()
    )
    assert {
        second["packages"][name] == version(name)
        for name in ("torch", "lightning", "deepspeed", "diffusers")
    } == {True}
    effective = yaml.safe_load((tmp_path / "runs/quickstart/version_1/config.yaml").read_text())
    assert effective["trainer"]["max_steps"] == 6 and effective["resume"] == "auto"


def test_processes_that_find_different_checkpoints_do_not_start(
    starter, watched, undisturbed, tmp_path
):
    config = watched(tmp_path)
    (tmp_path / "rank0" / CHECKPOINTS).mkdir(parents=True)
    shutil.copy(undisturbed / CHECKPOINTS / "step=2.ckpt", tmp_path / "rank0" / CHECKPOINTS)
    pid = starter.start(tmp_path / "rank{rank}", ["fit", "-c", config, *two("ddp")], SINGLE_HOST)
    assert starter.wait(pid) != 0
    assert (
        "rank 0 found step=2.ckpt, rank 1 found None: the checkpoints' folder must be on a file"
        " system" in said(tmp_path / "rank0")
    )
    assert not seen(tmp_path / "rank0") and not seen(tmp_path / "rank1")
