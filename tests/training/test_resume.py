"""A run that was interrupted and resumed is the run that was not, bit by bit."""

import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from kit.checkpoints import read, tensors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mimdit import cli
from lit_mimdit.training.callbacks import GracefulStop

LAST = "runs/quickstart/checkpoints/last.ckpt"


def assert_same_checkpoint(one: str | Path, other: str | Path) -> None:
    for entry in ("global_step", "lr_schedulers"):
        assert read(one)[entry] == read(other)[entry]
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys() and any(name.startswith("average") for name in ours)
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different, f"{len(different)} of {len(ours)} tensors differ, such as {different[0]}"


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_in_the_middle_of_an_epoch_equals_the_uninterrupted_run(tiny, workers):
    config = tiny(**{"data.init_args.workers": workers, "trainer.limit_val_batches": 0})
    assert cli.main(["fit", "-c", config]) == 0
    Path(LAST).rename("uninterrupted.ckpt")
    half = "runs/quickstart/checkpoints/step=3.ckpt"
    progress = read(half)["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert progress["is_last_batch"] is False and progress["current"]["ready"] == 1, (
        "the test is of the middle of an epoch"
    )
    assert cli.main(["fit", "-c", config, "--ckpt_path", half]) == 0
    assert_same_checkpoint("uninterrupted.ckpt", LAST)
    changed = tensors(half)
    assert any(not torch.equal(changed[name], tensor) for name, tensor in tensors(LAST).items())


def test_resuming_at_the_end_of_an_epoch_and_with_accumulation(tiny):
    changes = {
        "trainer.accumulate_grad_batches": 2,
        "trainer.max_steps": 4,
        "trainer.limit_val_batches": 0,
    }
    config = tiny(
        **changes, **{"data.init_args.micro_batch": 2}
    )  # 5 micro-batches an epoch: the last one fills no step and is left out
    assert cli.main(["fit", "-c", config]) == 0
    Path(LAST).rename("uninterrupted.ckpt")
    assert (
        cli.main(["fit", "-c", config, "--ckpt_path", "runs/quickstart/checkpoints/step=3.ckpt"])
        == 0
    )
    assert_same_checkpoint("uninterrupted.ckpt", LAST)


def test_last_is_the_last_step_and_can_be_named_last(tiny):
    """7 is no multiple of every_n_train_steps; validation in between; `--ckpt_path last` finds the
    file.
    """
    assert cli.main(["fit", "-c", tiny(**{"trainer.max_steps": 5})]) == 0
    assert read(LAST)["global_step"] == 5
    config = tiny(**{"trainer.max_steps": 7, "model.init_args.optimizer.schedule": "constant"})
    assert cli.main(["fit", "-c", config, "--ckpt_path", "last"]) == 0
    assert read(LAST)["global_step"] == 7
    assert sorted(p.name for p in Path(LAST).parent.glob("last*")) == ["last.ckpt"]


def test_a_new_run_leaves_the_last_checkpoint_of_an_older_one(tiny):
    config = tiny(**{"trainer.max_steps": 1, "trainer.limit_val_batches": 0})
    assert cli.main(["fit", "-c", config]) == 0
    first = Path(LAST).read_bytes()
    assert cli.main(["fit", "-c", config, "--model.init_args.optimizer.lr", "0.1"]) == 0
    assert sorted(p.name for p in Path(LAST).parent.glob("last*")) == ["last-v1.ckpt", "last.ckpt"]
    assert Path(LAST).read_bytes() == first != Path(LAST).with_name("last-v1.ckpt").read_bytes()
    assert cli.main(["fit", "-c", config, "--ckpt_path", "last", "--trainer.max_steps", "2"]) == 0
    assert [read(p)["global_step"] for p in sorted(Path(LAST).parent.glob("last*"))] == [
        2,
        1,
    ], "last is the newest, and goes on in its file"


def test_ctrl_c_stops_cleanly_and_the_run_goes_on_from_there(processes, tiny, tmp_path):
    changes = {
        "trainer.max_steps": 400,
        "trainer.limit_val_batches": 1,
        "trainer.val_check_interval": 1000,
    }
    config = tiny(**changes, **{"model.init_args.optimizer.schedule": "constant"})
    command = [sys.executable, "-m", "lit_mimdit", "fit", "-c", config]
    with open("output.txt", "wb") as output:
        process = processes.Popen(command, stdout=output, stderr=processes.STDOUT)
        limit = time.monotonic() + 300
        while (
            not Path("runs/quickstart/checkpoints/step=3.ckpt").exists()
            and process.poll() is None
            and time.monotonic() < limit
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 0, Path("output.txt").read_text()
    said = Path("output.txt").read_text()
    step = read(LAST)["global_step"]
    assert re.search(rf"Saved \S*last\.ckpt at step {step};", said) and "Traceback" not in said
    (events,) = Path("runs/quickstart/version_0").glob("events.*")
    tags = EventAccumulator(str(events)).Reload().Tags()["scalars"]
    assert "train/loss" in tags and "val/psnr_restored" not in tags, (
        "a stopped run validates no more"
    )
    assert 3 <= step < 400 and sorted(p.name for p in Path(LAST).parent.glob("last*")) == [
        "last.ckpt"
    ]

    more = ["--trainer.max_steps", str(step + 3), "--trainer.limit_val_batches", "0"]
    Path(LAST).rename("stopped.ckpt")
    assert cli.main(["fit", "-c", config, *more, "--ckpt_path", "stopped.ckpt"]) == 0
    Path(LAST).rename("resumed.ckpt")
    assert cli.main(["fit", "-c", config, *more]) == 0
    assert_same_checkpoint("resumed.ckpt", LAST)


def test_the_checkpoint_at_the_start_of_a_validation_resumes_exactly(tiny, monkeypatch):
    """A run that is killed while it validates goes on from there."""
    before = GracefulStop.on_validation_start

    def save_and_keep(self, trainer, pl_module) -> None:
        before(self, trainer, pl_module)
        if trainer.state.fn == "fit" and trainer.global_step == 3:
            shutil.copy(LAST, "validating.ckpt")

    monkeypatch.setattr(GracefulStop, "on_validation_start", save_and_keep)
    config = tiny()
    assert cli.main(["fit", "-c", config]) == 0
    assert read("validating.ckpt")["global_step"] == 3
    Path(LAST).rename("uninterrupted.ckpt")
    shutil.rmtree("runs")
    assert cli.main(["fit", "-c", config, "--resume", "validating.ckpt"]) == 0
    assert_same_checkpoint("uninterrupted.ckpt", LAST)
