"""What kills runs, done to real ones.

The same command goes on, and ends with the parameters of a run that nothing happened to.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from kit.checkpoints import tensors
from kit.starter import said
from kit.watch import seen
from real_runs import CHECKPOINTS, SINGLE_HOST, assert_same_run

# otherwise restarted processes find the addresses of those that died, and wait for them
# (pytorch/pytorch issue 135712)
RESTARTS = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def release(folder: Path) -> None:
    (folder / "go").touch()


def test_a_rank_is_killed_and_torchrun_goes_on_from_the_last_checkpoint(
    starter, watched, undisturbed, tmp_path
):
    args = ["fit", "-c", watched(tmp_path), *TWO]
    pid = starter.start(
        tmp_path, args, [*SINGLE_HOST, "--max-restarts", "1"], env=RESTARTS | {"HALT": "1:3"}
    )
    os.kill(starter.halted(pid, tmp_path), signal.SIGKILL)
    assert starter.wait(pid) == 0, said(tmp_path)[-3000:]
    assert "resume: going on from" in said(tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_sigusr1_to_one_rank_and_sigterm_to_torchrun_save_the_step(
    starter, watched, undisturbed, tmp_path
):
    args = ["fit", "-c", watched(tmp_path), *TWO]
    pid = starter.start(tmp_path, args, SINGLE_HOST, env={"HALT": "1:1"})
    os.kill(starter.halted(pid, tmp_path), signal.SIGUSR1)
    release(tmp_path)
    assert starter.wait(pid) == 0, said(tmp_path)[-3000:]
    assert "last.ckpt at step 2;" in said(tmp_path) and set(seen(tmp_path)) == {1, 2}
    for name in ("halted", "go"):
        (tmp_path / name).unlink()
    pid = starter.start(tmp_path, args, SINGLE_HOST, env={"HALT": "0:4"})
    starter.halted(pid, tmp_path)
    os.kill(pid, signal.SIGTERM)
    starter.hears(pid, tmp_path)
    release(tmp_path)
    assert starter.wait(pid) != 0, "torchrun tells that it was stopped"
    assert "last.ckpt at step 5;" in said(tmp_path) and set(seen(tmp_path)) == {1, 2, 3, 4, 5}
    starter.run(tmp_path, args, SINGLE_HOST)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_step_and_the_same_command_ends_with_the_same_bits(
    starter, watched, undisturbed, tmp_path, number
):
    args = ["fit", "-c", watched(tmp_path)]
    pid = starter.start(tmp_path, args, env={"HALT": "0:2"})
    os.kill(starter.halted(pid, tmp_path), number)
    release(tmp_path)
    assert starter.wait(pid) == 0, said(tmp_path)[-3000:]
    assert "last.ckpt at step 3;" in said(tmp_path) and set(seen(tmp_path)) == {1, 2, 3}
    starter.run(tmp_path, args)
    assert_same_run(tmp_path, undisturbed, atol=0)


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    starter, watched, undisturbed, tmp_path
):
    args, folder = ["fit", "-c", watched(tmp_path)], tmp_path / CHECKPOINTS
    pid = starter.start(tmp_path, args, env={"HALT": "0:3", "BALLAST": "200"})
    starter.halted(pid, tmp_path)
    assert (folder / "step=2.ckpt").exists()
    release(tmp_path)
    limit = time.monotonic() + 300
    while not any(
        path.stat().st_size for path in folder.glob(".*.part")
    ):  # the checkpoint of step 4
        assert time.monotonic() < limit, said(tmp_path)[-3000:]
    os.kill(pid, signal.SIGKILL)
    assert starter.wait(pid) == -signal.SIGKILL
    (part,) = folder.glob(".*.part")
    assert (
        0 < part.stat().st_size <= (folder / "step=2.ckpt").stat().st_size
        and not (folder / "step=4.ckpt").exists()
    )
    starter.run(tmp_path, args)
    assert f"skipped {folder / part.name}" in said(tmp_path) and "never finished" in said(tmp_path)
    assert_same_run(tmp_path, undisturbed, atol=0)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a tmpfs of a size in bytes on the folder of the checkpoints, and makes it larger."""
    folder = tmp_path / CHECKPOINTS
    folder.mkdir(parents=True)

    def mount(size: int, *options: str) -> None:
        command = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            ",".join([*options, f"size={size}"]),
            "tmpfs",
            str(folder),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def test_a_full_disk_costs_checkpoints_and_not_the_run(
    small_disk, starter, watched, undisturbed, tmp_path
):
    size = (undisturbed / CHECKPOINTS / "step=2.ckpt").stat().st_size
    small_disk(round(1.5 * size))  # step=2, and last.ckpt as another name of it
    args, folder = ["fit", "-c", watched(tmp_path)], tmp_path / CHECKPOINTS
    assert starter.wait(starter.start(tmp_path, args)) == 2, (
        "a run does not end well without its last checkpoint"
    )
    output = said(tmp_path)
    assert (
        "WARNING: NO CHECKPOINT of step 4" in output
        and "No space left on device" in output
        and "The run goes on" in output
    )
    assert set(seen(tmp_path)) == set(range(1, 7)), "it went on"
    assert "the run's last checkpoint could not be written" in output
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "step=2.ckpt"]
    before = tensors(undisturbed / CHECKPOINTS / "step=2.ckpt")
    assert all(
        tensor.equal(before[name]) for name, tensor in tensors(folder / "step=2.ckpt").items()
    )
    small_disk(10 * size, "remount")
    starter.run(tmp_path, args)
    assert_same_run(tmp_path, undisturbed, atol=0)


def test_a_nan_stops_all_ranks_before_the_step_and_says_where(
    starter, watched, undisturbed, tmp_path
):
    args = ["fit", "-c", watched(tmp_path), *TWO]
    assert starter.wait(starter.start(tmp_path, args, SINGLE_HOST, env={"NAN": "1:4"})) != 0
    message, *_ = [
        line
        for line in said(tmp_path).splitlines()
        if "error: the loss (velocity) is not finite (rank 1, step 4" in line
    ]
    given = seen(undisturbed)[5]
    (named,) = [id for id in given if f"samples {id})" in message]
    assert named
    assert set(seen(tmp_path)) == {1, 2, 3, 4}
    starter.run(tmp_path, args, SINGLE_HOST)
    assert_same_run(tmp_path, undisturbed)


def test_a_rank_that_no_longer_answers_ends_the_run_within_the_timeout(starter, watched, tmp_path):
    """Under ZeRO-3, where leaving needs the others as well, unless something failed."""
    zero3 = {
        "class_path": "lit_mimdit.training.strategies.ZeROOnCPU",
        "init_args": {"stage": 3, "timeout": "0:00:15"},
    }
    args = ["fit", "-c", watched(tmp_path, **{"trainer.strategy": zero3}), "--trainer.devices", "2"]
    pid = starter.start(tmp_path, args, SINGLE_HOST, env={"HALT": "1:3"})
    stopped = starter.halted(pid, tmp_path)
    os.kill(stopped, signal.SIGSTOP)
    starter.until(pid, tmp_path, lambda: "error: rank 0 on" in said(tmp_path))
    os.kill(stopped, signal.SIGKILL)
    assert starter.wait(pid) != 0
    assert (
        "did not answer within the strategy's timeout" in said(tmp_path)
        and "Traceback" not in said(tmp_path).split("error: rank 0")[0]
    )
    assert max(seen(tmp_path)) == 3
