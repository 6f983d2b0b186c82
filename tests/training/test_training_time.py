"""Training time is measured over all cuts of a run, without validation, and ends it."""

from pathlib import Path

import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from lit_mimdit.inference.system_file import read_checkpoint
from lit_mimdit.training.callbacks.training_time import TrainingTime, seconds_in
from lit_mimdit.training.trainer import Trainer

STEP, VALIDATION = 10.0, 1000.0  # seconds of the clock


class Clock(BoringModel):
    """A model whose work moves a clock on."""

    now = 0.0

    def training_step(self, *args):
        self.now += STEP
        return super().training_step(*args)

    def validation_step(self, *args):
        self.now += VALIDATION
        return super().validation_step(*args)


def train(
    folder: Path, minutes: float | None, steps: int = -1, start: Path | None = None, every: int = 2
) -> tuple[Trainer, TrainingTime]:
    """Train the model above, and leave a checkpoint in the folder."""
    model, timer = Clock(), TrainingTime(minutes)
    timer._clock = lambda: model.now
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        callbacks=[timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
        num_sanity_val_steps=1,
    )
    trainer.fit(model, ckpt_path=start)
    trainer.save_checkpoint(folder / "run.ckpt")
    return trainer, timer


def test_a_run_ends_when_its_minutes_are_spent_and_validation_is_free(tmp_path):
    """40 s are 4 steps of 10 s, with two validations of 1000 s between and one before them."""
    trainer, timer = train(tmp_path, minutes=40 / 60)
    assert trainer.global_step == 4
    assert timer.seconds == pytest.approx(40) and timer.spent and timer.share_of_budget == 1


def test_a_resumed_run_goes_on_with_the_rest_of_its_time(tmp_path):
    cut, timer = train(tmp_path, minutes=50 / 60, steps=2)
    assert timer.share_of_budget == pytest.approx(0.4) and not timer.spent
    rest, timer = train(tmp_path, minutes=50 / 60, start=tmp_path / "run.ckpt")
    assert (cut.global_step, rest.global_step) == (2, 5)
    assert seconds_in(read_checkpoint(tmp_path / "run.ckpt")) == pytest.approx(50)
    again, _ = train(tmp_path, minutes=50 / 60, start=tmp_path / "run.ckpt")
    assert again.global_step == 5, "nothing is left to train"


def test_without_minutes_it_only_measures(tmp_path):
    trainer, timer = train(tmp_path, minutes=None, steps=3)
    assert (trainer.global_step, timer.seconds) == (3, 30.0)
    assert not timer.spent and timer.share_of_budget is None
    assert seconds_in({"callbacks": {}}) is None


def test_minutes_must_be_more_than_none():
    with pytest.raises(ValueError, match="minutes is 0; it must be more than 0"):
        TrainingTime(0)
