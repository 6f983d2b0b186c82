"""Learning curves of a study: read from what TensorBoard recorded, paired by seed and step."""

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from lit_mimdit.ablation.curves import curves, losses, mean_curve, picture, smooth
from lit_mimdit.ablation.runs import Run
from lit_mimdit.ablation.study import Study, Variant

LOSSES = {
    ("full", 0): [4.0, 2.0, 1.0],
    ("full", 1): [8.0, 4.0, 2.0],
    ("other", 0): [4.0, 3.0, 2.0],
    ("other", 1): [8.0, 2.0],
}


@pytest.fixture
def runs(tmp_path):
    """The second run of `other` has not come as far."""
    for (variant, seed), values in LOSSES.items():
        with SummaryWriter(Run(variant, seed, tmp_path).folder / "log") as writer:
            for number, value in enumerate(values):
                writer.add_scalar("train/loss", value, 10 * number + 9)
                writer.add_scalar("train/other", 0.0, number)
    return [Run(variant, seed, tmp_path) for variant, seed in LOSSES]


def test_rows_and_means_by_hand(runs, tmp_path):
    rows = curves(runs)
    assert len(rows) == 11 and rows[1] == {"variant": "full", "seed": 0, "step": 19, "loss": 2.0}
    steps, values = mean_curve(rows, "full")
    assert steps.tolist() == [9, 19, 29] and values.tolist() == [6.0, 3.0, 1.5]
    steps, values = mean_curve(rows, "other", "full")
    assert steps.tolist() == [9, 19, 29] and values.tolist() == [
        1.0,
        (3 / 2 + 2 / 4) / 2,
        2.0,
    ], "by seed; the last of one seed"
    assert losses(Run("none", 0, tmp_path)) == {}


def test_a_step_that_only_a_resumed_run_logged_is_left_out(runs):
    rows = [*curves(runs), {"variant": "full", "seed": 1, "step": 22, "loss": 100.0}]
    steps, values = mean_curve(rows, "full")
    assert steps.tolist() == [9, 19, 29] and values.tolist() == [6.0, 3.0, 1.5]


def test_smoothing_by_hand():
    np.testing.assert_allclose(smooth(np.array([1.0, 3.0, 5.0, 1.0]), 2), [2, 4, 3])


def test_a_line_a_variant_and_one_less_where_it_is_divided_by_the_full_models(runs):
    study = Study(
        "b", "full", {"full": Variant(), "other": Variant(), "not_yet": Variant()}, [0, 1], ["psnr"]
    )
    left, right = picture(study, curves(runs)).axes
    assert [line.get_label() for line in left.lines] == ["full", "other"] and left.lines[
        0
    ].get_ydata().tolist() == [6.0, 3.0, 1.5]
    assert [line.get_label() for line in right.lines if not line.get_label().startswith("_")] == [
        "other"
    ]
