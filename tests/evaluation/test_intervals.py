"""Intervals for other trainings and other images, against cases that can be worked out, and against
their own promise.
"""

import math

import numpy as np
import pytest
from scipy import stats

from lit_mimdit.evaluation.intervals import bootstrap, crossed_interval, standard_error, t_interval


def test_images_that_differ_alike_in_all_seeds_leave_the_seeds_alone():
    """Only seeds vary: Student's interval of 3 values."""
    seeds = np.array([0.1, 0.4, 0.7])
    mean, low, high = crossed_interval(np.repeat(seeds[:, None], 5, 1))
    reach = 4.302653 * 0.3 / math.sqrt(3)  # t of 2 degrees of freedom, standard deviation 0.3
    assert (mean, low, high) == pytest.approx((0.4, 0.4 - reach, 0.4 + reach), rel=1e-6)


def test_seeds_that_agree_leave_the_images_alone():
    """Only images vary: Student's interval of 4 values, without a price for the few seeds."""
    images = np.array([1.0, 2.0, 3.0, 4.0])
    mean, low, high = crossed_interval(np.repeat(images[None], 3, 0))
    reach = 3.182446 * math.sqrt(5 / 3 / 4)  # t of 3 degrees of freedom
    assert (mean, low, high) == pytest.approx((2.5, 2.5 - reach, 2.5 + reach), rel=1e-6)


def test_a_table_worked_out_by_hand():
    """Seeds (1, 3), images (0, 2, 4) around mean 2 and a residual of +-1 in two images.

    MS_S = 6, MS_I = 4 * 2, MS_E = 2.
    """
    d = np.array([[1 - 2 + 1, 1 + 0 - 1, 1 + 2.0], [3 - 2 - 1, 3 + 0 + 1, 3 + 2]])
    assert d.mean() == 2
    spread, freedom = 6 + 8 - 2, 12**2 / (6**2 / 1 + 8**2 / 2 + 2**2 / 2)
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(spread / 6)
    assert crossed_interval(d) == pytest.approx((2, 2 - reach, 2 + reach))


@pytest.mark.parametrize(
    ("sd_seed", "sd_image", "sd_rest"),
    [(1.0, 0.1, 1.0), (0.1, 1.0, 0.5), (0.5, 0.5, 0.5), (0.0, 0.0, 1.0)],
)
def test_about_95_of_100_intervals_hold_the_truth(sd_seed, sd_image, sd_rest):
    """3 seeds, 30 images, whichever of them varies most; the share of 2,000 tables has a standard
    error of 0.5%.
    """
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        d = (
            sd_seed * draw.normal(size=(3, 1))
            + sd_image * draw.normal(size=(1, 30))
            + sd_rest * draw.normal(size=(3, 30))
            + 0.3
        )
        _, low, high = crossed_interval(d)
        held += low <= 0.3 <= high
    assert held / 2000 >= 0.915


def test_one_seed_or_one_image_proves_nothing():
    for shape in ((1, 5), (3, 1)):
        mean, low, high = crossed_interval(np.ones(shape))
        assert mean == 1 and math.isnan(low) and math.isnan(high)
    assert crossed_interval(np.zeros((3, 4))) == (0, 0, 0)


def test_a_spread_that_nearly_vanishes_leaves_the_degrees_of_freedom_of_the_seeds():
    """Seeds that agree better than the rest lets one expect.

    MS_S + MS_I - MS_E is small, and so are Satterthwaite's degrees.
    """
    noise = np.random.default_rng(0).normal(size=(3, 12))
    d = noise - noise.mean(1, keepdims=True) + 0.001 * np.arange(3)[:, None]
    d += (1.01 - 1.0) * d.mean(0)
    rest = d - d.mean(1, keepdims=True) - d.mean(0) + d.mean()
    scale = np.sqrt(np.square(rest).sum() / 22 / (3 * np.square(d.mean(0) - d.mean()).sum() / 11))
    d = d + (1.001 * scale - 1) * (d.mean(0) - d.mean())  # MS_I just above MS_E
    mean, low, high = crossed_interval(d)
    assert np.isfinite([mean, low, high]).all() and high - low < 1.0


def test_the_interval_is_scipys():
    values = np.random.default_rng(0).normal(size=(5, 3))
    mean, low, high = t_interval(values)
    for column in range(3):
        own = values[:, column]
        expected = stats.t.interval(0.95, 4, own.mean(), stats.sem(own))
        assert (low[column], high[column]) == pytest.approx(expected) and mean[
            column
        ] == pytest.approx(own.mean())
    assert standard_error(values) == pytest.approx(stats.sem(values))
    assert np.isnan(t_interval(values[:1])[1]).all() and np.isnan(standard_error(values[:1])).all()
    # three values by hand: t_{2, 0.975} = 4.30265; mean 2, s = 1
    assert t_interval(np.array([1.0, 2.0, 3.0]))[2] == pytest.approx(2 + 4.30265 / 3**0.5, rel=1e-5)


def test_the_interval_is_a_percentile_bootstrap():
    """0 and 1, each half the time.

    The mean of 100 draws is binomial, sd 0.05; and it is repeatable, but not for another seed.
    """
    values = np.array([0.0, 1.0] * 50)
    low, high = bootstrap(values, seed=0)
    assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.011) and high == pytest.approx(
        0.5 + 1.96 * 0.05, abs=0.011
    )
    noise = np.random.default_rng(0).normal(size=50)
    assert bootstrap(noise, 0) == bootstrap(noise, 0) != bootstrap(noise, 1)
    assert bootstrap(noise, 0, resamples=100) != bootstrap(noise, 0)
    assert all(map(math.isnan, bootstrap(values[:1], 0)))


def test_a_bootstrap_covers_the_truth_as_often_as_it_says():
    draw, hits = np.random.default_rng(0), 0
    for _ in range(300):
        low, high = bootstrap(draw.normal(5.0, 2.0, 40), seed=0, resamples=400)
        hits += low <= 5.0 <= high
    assert 0.89 <= hits / 300 <= 0.97
