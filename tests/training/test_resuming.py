"""`resume`.

Which checkpoint a run goes on from, and which are named and skipped. And what Slurm says about a
job.
"""

import os
import signal
from pathlib import Path

import pytest
import torch

from lit_mimdit.inference.system_file import KEY
from lit_mimdit.training import slurm
from lit_mimdit.training.resume import checkpoint_to_resume, newest_valid


def checkpoint(path: Path, age: int) -> Path:
    """A file that looks like a run's checkpoint, `age` seconds old."""
    torch.save({KEY: {}, "loops": {}, "optimizer_states": [], "x": torch.arange(1000.0)}, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_newest_whole_checkpoint_is_taken_and_the_broken_ones_are_named(tmp_path):
    good = checkpoint(tmp_path / "step=3.ckpt", 9)
    checkpoint(tmp_path / "step=1.ckpt", 20)
    assert newest_valid(tmp_path) == (good, [])
    cut, flipped = checkpoint(tmp_path / "cut.ckpt", 3), checkpoint(tmp_path / "flipped.ckpt", 2)
    cut.write_bytes(cut.read_bytes()[:-100])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    torch.save({"other": 1}, tmp_path / "other.ckpt")
    (tmp_path / ".abc.part").write_bytes(b"half")
    found, problems = newest_valid(tmp_path)
    assert found == good and len(problems) == 4
    for name in ("cut.ckpt", "flipped.ckpt", "other.ckpt", ".abc.part"):
        assert any(name in problem for problem in problems)


def test_what_the_option_means(tmp_path):
    assert checkpoint_to_resume("auto", [tmp_path]) is None
    assert checkpoint_to_resume("auto", [tmp_path / "not yet"]) is None
    good = checkpoint(tmp_path / "a.ckpt", 1)
    assert (
        checkpoint_to_resume("auto", [None, tmp_path])
        == good
        == checkpoint_to_resume(str(good), [])
    )
    with pytest.raises(ValueError, match="resume is auto, but no ModelCheckpoint"):
        checkpoint_to_resume("auto", [None])
    with pytest.raises(ValueError, match="'automatic' is neither auto, nor never, nor a file"):
        checkpoint_to_resume("automatic", [tmp_path])


@pytest.mark.parametrize(
    "number, state, requeued",
    [
        (signal.SIGUSR1, "RUNNING", True),
        (signal.SIGTERM, "RUNNING", True),
        (signal.SIGTERM, "CANCELLED", False),
        (signal.SIGTERM, "PREEMPTED", False),
        (signal.SIGINT, "RUNNING", False),
    ],
)
def test_a_cancelled_job_is_not_requeued(number, state, requeued, tmp_path, monkeypatch):
    """`scontrol` is a script that answers as Slurm does and writes down what it was asked."""
    script = tmp_path / "scontrol"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "JobId=7 JobState={state} Reason=None"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    slurm.requeue(number)
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert ("requeue 7" in asked) == requeued
    monkeypatch.delenv("SLURM_JOB_ID")
    assert slurm.requeue(number) is None
