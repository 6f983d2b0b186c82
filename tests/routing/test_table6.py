"""The published table, intervals, and what counts as a preference that appears."""

import numpy as np
import pytest
from scipy import stats

from lit_mimdit.routing.table6 import (
    PAPER_GROUPS,
    TYPES,
    Interval,
    agreement,
    over_checkpoints,
    over_images,
    read_table6,
    rows_of,
    verdicts,
)


def test_the_published_table_is_read_the_right_way_round():
    table = read_table6()
    assert list(TYPES) == ["blur", "noise", "haze", "rain", "low-light"]
    assert list(TYPES.values()) == ["01Blur", "05Noise", "08Haze", "10Rain", "14Lowlight"]
    assert table.shape == (5, 4) and table.sum(1) == pytest.approx(1, abs=2e-3)
    assert (
        table[2, PAPER_GROUPS.index("channel")] == 0.4008
        and table[3, PAPER_GROUPS.index("swin")] == 0.3673
    )


def test_intervals_over_trainings_are_student_s_and_contrasts_are_paired():
    draw = np.random.default_rng(0)
    means = draw.random((3, 5, 4)) + 10 * draw.random(
        (3, 1, 4)
    )  # a group's level moves from training to training
    weights, contrasts = over_checkpoints(means)
    own = means[:, 1, 2]
    assert (weights.low[1, 2], weights.high[1, 2]) == pytest.approx(
        stats.t.interval(0.95, 2, own.mean(), stats.sem(own))
    )
    apart = own - means[:, :, 2].mean(1)
    assert (contrasts.low[1, 2], contrasts.high[1, 2]) == pytest.approx(
        stats.t.interval(0.95, 2, apart.mean(), stats.sem(apart))
    )
    assert contrasts.high[1, 2] - contrasts.low[1, 2] < weights.high[1, 2] - weights.low[1, 2]


def test_intervals_over_images_hold_in_simulation():
    """95 of 100 intervals of a contrast cover the true one."""
    draw, covered = np.random.default_rng(0), 0
    truth = np.array([0.3, 0.2, 0.5])
    for _ in range(400):
        values = [draw.normal(mean, 0.1 * (1 + d), (30, 1)) for d, mean in enumerate(truth)]
        _, contrasts = over_images(values)
        covered += contrasts.low[0, 0] <= truth[0] - truth.mean() <= contrasts.high[0, 0]
    assert covered / 400 == pytest.approx(0.95, abs=0.03)
    weights, contrasts = over_images(values)
    variance = [some.var(ddof=1) / 30 for some in values]
    by_hand = (2 / 3) ** 2 * variance[0] + (
        variance[1] + variance[2]
    ) / 9  # of 2/3 m_0 - 1/3 m_1 - 1/3 m_2
    assert contrasts.high[0, 0] - contrasts.mean[0, 0] == pytest.approx(
        1.959964 * by_hand**0.5, rel=1e-5
    )
    assert weights.mean[1, 0] == values[1].mean() and weights.low[1, 0] == pytest.approx(
        stats.t.interval(0.95, 29, values[1].mean(), stats.sem(values[1][:, 0]))[0]
    )
    assert np.isnan(over_images([some[:1] for some in values])[1].low).all()


def test_verdicts_by_hand():
    own = Interval(
        np.array([[0.3, 0.3, 0.2, 0.2]]),
        np.array([[0.26, 0.24, 0.15, 0.15]]),
        np.array([[0.34, 0.36, 0.24, 0.24]]),
    )
    found = verdicts(own, np.array([[0.4, 0.4, 0.1, 0.35]]), 0.25)
    assert found.tolist() == [["appears", "undecided", "appears", "opposite"]]
    unknown = Interval(own.mean, own.mean * np.nan, own.mean * np.nan)
    assert set(verdicts(unknown, np.array([[0.4] * 4]), 0.25).ravel()) == {"undecided"}


def test_a_table_agrees_with_itself_and_not_with_its_opposite():
    table = read_table6()
    assert agreement(table, table) == {
        "spearman_weights": 1.0,
        "spearman_contrasts": 1.0,
        "same_heaviest_group": 5,
    }
    other = agreement(0.5 - table, table)
    assert other["spearman_weights"] == pytest.approx(-1) and other[
        "spearman_contrasts"
    ] == pytest.approx(-1)
    assert other["same_heaviest_group"] == 0


def test_rows_have_published_values_only_where_there_are_any():
    means = read_table6()
    interval = Interval(means, means - 0.01, means + 0.01)
    rows = rows_of(interval, interval, [7] * 5, list(TYPES), PAPER_GROUPS, means)
    assert len(rows) == 20 and rows[5] == rows[5] | {
        "degradation": "noise",
        "group": "channel",
        "images": 7,
        "published": 0.2784,
    }
    assert rows[0]["published_contrast"] == pytest.approx(
        0.3622 - np.mean([0.3622, 0.3953, 0.1630, 0.3321, 0.2081])
    )
    assert (
        "published" not in rows_of(interval, interval, [7] * 5, list(TYPES), PAPER_GROUPS, None)[0]
    )
