"""The objective's formulas against values that this code did not compute."""

import math

import pytest
import torch
from scipy import stats

from lit_mimdit.inference.sampler import euler, heun
from lit_mimdit.models.flow import (
    FlowConfig,
    clean,
    gaussian_baseline,
    interpolate,
    logit_normal,
    loss_per_sample,
    sample_noise,
    sample_times,
    shift,
    velocity,
)

X0, EPS = torch.randn(2, 3, 4, 5, 4, generator=torch.Generator().manual_seed(0)).unbind()


def test_t_0_is_the_clean_latent_and_t_1_is_noise():
    assert torch.equal(interpolate(X0, EPS, torch.zeros(3)), X0)
    assert torch.equal(interpolate(X0, EPS, torch.ones(3)), EPS)
    t = torch.tensor([0.0, 0.25, 1.0])  # a time of its own for each sample
    x_t = interpolate(X0, EPS, t)
    assert torch.equal(x_t[0], X0[0]) and torch.equal(x_t[2], EPS[2])
    torch.testing.assert_close(x_t[1], 0.75 * X0[1] + 0.25 * EPS[1])


def test_velocity_is_the_derivative_and_points_back_to_the_clean_latent():
    t = torch.tensor([0.2, 0.5, 0.9])
    slope = (
        interpolate(X0.double(), EPS.double(), t + 1e-4) - interpolate(X0.double(), EPS.double(), t)
    ) / (t + 1e-4 - t)[0].double()
    torch.testing.assert_close(velocity(X0, EPS).double(), slope, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(clean(interpolate(X0, EPS, t), velocity(X0, EPS), t), X0)


@pytest.mark.parametrize("times", [[1.0, 0.0], [1.0, 0.9, 0.33, 0.0]])
@pytest.mark.parametrize("solver", [euler, heun])
def test_the_exact_velocity_brings_back_the_clean_latent(solver, times):
    torch.testing.assert_close(
        solver(lambda x, t: velocity(X0, EPS), EPS, times), X0, rtol=0, atol=1e-5
    )


def test_logit_normal_times_have_scipys_distribution():
    """sigmoid(m + s n) <= t exactly when n <= (logit(t) - m) / s."""
    for mean, std in ((0.0, 1.0), (0.5, 0.7)):
        t = torch.tensor([0.05, 0.3, 0.5, 0.8, 0.99], dtype=torch.float64)
        n = torch.from_numpy((stats.logistic.ppf(t.numpy()) - mean) / std)
        torch.testing.assert_close(logit_normal(n, mean, std), t)
        drawn = sample_times(
            torch.from_numpy(stats.norm.ppf((torch.arange(999) + 0.5).numpy() / 999)),
            FlowConfig(mean, std),
        )
        exact = stats.norm.cdf((stats.logistic.ppf(0.3) - mean) / std)
        assert (drawn <= 0.3).double().mean().item() == pytest.approx(exact, abs=2e-3)


def test_shift_by_hand():
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    assert torch.equal(shift(t, 1.0), t)
    torch.testing.assert_close(
        shift(t, 3.0), torch.tensor([0.0, 0.5, 0.75, 1.0])
    )  # 3/4 / (1 + 2/4), 3/2 / (1 + 2/2)
    n = torch.tensor([0.0])
    torch.testing.assert_close(sample_times(n, FlowConfig(time_shift=3.0)), torch.tensor([0.75]))
    torch.testing.assert_close(
        sample_times(n, FlowConfig(time_mean=math.log(3.0))), torch.tensor([0.75])
    )


def test_the_clean_weighting_is_the_error_of_the_implied_clean_latent():
    t, guess = (
        torch.tensor([0.1, 0.5, 1.0]),
        torch.randn(3, 4, 5, 4, generator=torch.Generator().manual_seed(1)),
    )
    target, x_t = velocity(X0, EPS), interpolate(X0, EPS, t)
    plain = loss_per_sample(guess, target, t, "velocity")
    torch.testing.assert_close(plain, ((guess - target) ** 2).mean((1, 2, 3)))
    torch.testing.assert_close(
        loss_per_sample(guess, target, t, "clean"),
        ((clean(x_t, guess, t) - X0) ** 2).mean((1, 2, 3)),
    )
    torch.testing.assert_close(loss_per_sample(guess, target, t, "clean"), plain * t**2)
    assert (
        loss_per_sample(guess.bfloat16(), target.bfloat16(), t, "velocity").dtype == torch.float32
    )


def test_the_gaussian_baseline_against_monte_carlo():
    """The best linear guess of the velocity from x_t, fitted to a million draws."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 1_000_000, generator=generator).double().unbind()
    for t in (0.0, 0.1, 0.5, 0.8, 1.0):
        x_t, v = (1 - t) * x0 + t * eps, eps - x0
        slope = (x_t * v).mean() / (x_t * x_t).mean()
        error = (v - slope * x_t).square().mean().item()
        assert gaussian_baseline(torch.tensor(t)).item() == pytest.approx(error, abs=0.01)


def test_a_samples_noise_does_not_depend_on_its_neighbours():
    seeds = torch.tensor([7, 2**63 - 1, 5])
    noise, extra = sample_noise(seeds, (2, 3, 4))
    for row, seed in enumerate(seeds):
        alone, number = sample_noise(seed[None], (2, 3, 4))
        assert torch.equal(alone[0], noise[row]) and torch.equal(number[0], extra[row])
    assert torch.equal(noise[0], torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(7)))
    assert not torch.equal(noise[0], noise[2]) and extra.unique().numel() == 3
    torch.manual_seed(1)
    assert torch.equal(sample_noise(seeds, (2, 3, 4))[0], noise), (
        "the global random state plays no part"
    )
    many, normal = sample_noise(torch.arange(2000), (8,))
    assert (
        stats.kstest(many.flatten().numpy(), "norm").pvalue > 1e-3
        and stats.kstest(normal.numpy(), "norm").pvalue > 1e-3
    )


@pytest.mark.parametrize("wrong", [{"time_std": 0.0}, {"time_shift": -1.0}])
def test_impossible_settings(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"flow\.{name}( is)? {value}"):
        FlowConfig(**wrong)
