"""Distillation on flows whose answer is known: Gaussian data, where noise maps to m + s noise."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from lit_mimdit.inference.sampler import SamplingConfig, euler, sample
from lit_mimdit.models.distillation import (
    distribution_gradient,
    is_students_turn,
    matching_error,
    surrogate,
    uniform_times,
    updates_before,
)
from lit_mimdit.models.flow import clean, interpolate, sample_noise

MEAN, SPREAD = 1.5, 0.4


def gaussian_velocity(x: Tensor, t: Tensor | float, mean: float, spread: float) -> Tensor:
    """E[e - x_0 | x_t] of data N(mean, spread^2): the regression of jointly normal numbers."""
    t = torch.as_tensor(t, dtype=x.dtype)
    variance = (1 - t) ** 2 * spread**2 + t**2
    apart = x - (1 - t) * mean
    return t * apart / variance - mean - (1 - t) * spread**2 * apart / variance


class Affine(nn.Module):
    """A student of one step: v = a noise + b, so z = noise - v = (1 - a) noise - b."""

    def __init__(self, mean: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(1.0 - spread))
        self.b = nn.Parameter(torch.tensor(-mean))

    def forward(self, noise: Tensor) -> Tensor:
        return euler(lambda x, t: self.a * x + self.b, noise, [1.0, 0.0])

    @property
    def mean(self) -> float:
        return -self.b.item()

    @property
    def spread(self) -> float:
        return 1.0 - self.a.item()


def noise_of(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_a_student_of_one_step_that_matches_its_teacher_reaches_the_exact_map():
    """400 steps of UniPC end at m + s noise but for 1e-3; one Euler step of the teacher at m."""
    student, noise = Affine(), noise_of(64, 0)
    config = SamplingConfig(steps=400, solver="unipc")
    taught = sample(
        lambda x, t: gaussian_velocity(x, t, MEAN, SPREAD),
        noise,
        noise,
        FlowMatchEulerDiscreteScheduler(),
        config,
    )
    torch.testing.assert_close(taught, MEAN + SPREAD * noise, rtol=0, atol=5e-3)
    by_euler = euler(lambda x, t: gaussian_velocity(x, t, MEAN, SPREAD), noise, [1.0, 0.0])
    torch.testing.assert_close(by_euler, torch.full_like(noise, MEAN))
    optimizer = torch.optim.LBFGS(student.parameters(), max_iter=20)

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = matching_error(student(noise), taught).mean()
        error.backward()
        return error

    optimizer.step(loss)
    assert student.mean == pytest.approx(MEAN, abs=5e-3)
    assert student.spread == pytest.approx(SPREAD, abs=5e-3)


def foretold(x_t: Tensor, t: Tensor, mean: float, spread: float) -> Tensor:
    times = t.view(-1, 1, 1, 1)
    return clean(x_t, gaussian_velocity(x_t, times, mean, spread), t)


def test_the_gradient_is_zero_where_the_distributions_match():
    z = MEAN + SPREAD * noise_of(8, 0)
    t = torch.linspace(0.05, 0.95, 8)
    x_t = interpolate(z, noise_of(8, 1), t)
    same = foretold(x_t, t, MEAN, SPREAD)
    assert distribution_gradient(z, same, same).abs().max() == 0


def test_for_a_shifted_gaussian_it_is_the_difference_of_the_scores():
    """Data N(m, s^2), student N(m + d, s^2): log p_d - log p has the derivative (1 - t) d / var at
    every x_t, var = (1 - t)^2 s^2 + t^2; the clean latents are t^2 / (1 - t) of it apart.
    """
    shift = -0.7
    z = MEAN + shift + SPREAD * noise_of(8, 0)
    t = torch.linspace(0.05, 0.95, 8)
    x_t = interpolate(z, noise_of(8, 1), t)
    real, fake = (foretold(x_t, t, mean, SPREAD) for mean in (MEAN, MEAN + shift))
    gradient = distribution_gradient(z, real, fake)
    apart = (z - real).abs().mean((1, 2, 3))
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    expected = shift * t**2 / variance / apart
    torch.testing.assert_close(
        gradient, expected.view(-1, 1, 1, 1).expand_as(z), rtol=1e-3, atol=1e-4
    )
    assert (gradient < 0).all(), "the student has to rise"


def test_the_normaliser_takes_the_size_of_the_numbers_out():
    z, real, fake = noise_of(3, 0), noise_of(3, 1), noise_of(3, 2)
    torch.testing.assert_close(
        distribution_gradient(7 * z, 7 * real, 7 * fake), distribution_gradient(z, real, fake)
    )


def test_the_surrogates_gradient_is_the_given_one():
    z, gradient = noise_of(3, 0).requires_grad_(), noise_of(3, 1)
    losses = surrogate(z, gradient)
    losses.sum().backward()
    assert losses.shape == (3,)
    torch.testing.assert_close(z.grad, gradient / z[0].numel())


def test_distribution_matching_leads_a_wrong_student_to_the_data():
    """With the exact scores of the data and of the student's own distribution."""
    student = Affine(mean=-1.0, spread=1.5)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 400)
        z = student(noise_of(32, 2 * step))
        other, normal = sample_noise(torch.arange(32) + 1000 * step, (1, 4, 4))
        t = uniform_times(normal, 0.02, 0.98)
        with torch.no_grad():
            x_t = interpolate(z, other, t)
            real = foretold(x_t, t, MEAN, SPREAD)
            fake = foretold(x_t, t, student.mean, student.spread)
            gradient = distribution_gradient(z, real, fake)
        optimizer.zero_grad()
        surrogate(z, gradient).mean().backward()
        optimizer.step()
    assert student.mean == pytest.approx(MEAN, abs=0.02)
    assert abs(student.spread) == pytest.approx(SPREAD, abs=0.03)


def test_matching_error_is_the_mean_square():
    z, other = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    other[1, 0, 0, 0] = 2.0
    assert matching_error(z, other).tolist() == [0.0, 1.0]


def test_times_are_uniform_between_their_ends():
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    t = uniform_times(normal, 0.2, 0.6)
    assert t.min() >= 0.2 and t.max() <= 0.6
    counts = torch.histc(t, bins=4, min=0.2, max=0.6) / len(t)
    assert counts.tolist() == pytest.approx([0.25] * 4, abs=0.015)
    assert uniform_times(torch.zeros(1), 0.2, 0.6).item() == pytest.approx(0.4)
    assert math.isclose(uniform_times(torch.ones(1), 0.0, 1.0).item(), 0.841345, abs_tol=1e-5)


def test_five_updates_of_the_fake_score_come_before_each_of_the_students():
    turns = [is_students_turn(step, 5) for step in range(12)]
    assert turns == [False] * 5 + [True] + [False] * 5 + [True]
    for step in range(12):
        before = sum(turns[:step])
        assert updates_before(step, 5) == (before, step - before)
