"""Solvers against an exact answer: the flow of a mixture of Gaussians in one dimension.

In one dimension the flow keeps the order of its points. So it maps the quantiles of the noise to
those of the data: x_0 = F_0^{-1}(F_1(x_1)), whatever the velocity between.
"""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from lit_mimdit.inference.sampler import SamplingConfig, sample

WEIGHT, MEAN, SPREAD = (
    torch.tensor(values, dtype=torch.float64) for values in ((0.3, 0.7), (-1.5, 1.0), (0.3, 0.6))
)
NOISE = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))


# x_t = (1 - t) x_0 + t e with x_0 of component k: N((1 - t) m_k, (1 - t)^2 s_k^2 + t^2), so
# v = E[e - x_0 | x_t] = sum_k p(k | x_t) (t d_k / var_k - m_k - (1 - t) s_k^2 d_k / var_k)
def velocity(x: Tensor, t: float) -> Tensor:
    """The exact velocity of the mixture, at points of any shape."""
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    apart = x.double()[..., None] - (1 - t) * MEAN
    share = (WEIGHT.log() - 0.5 * apart**2 / variance - 0.5 * variance.log()).softmax(-1)
    noise, clean = t * apart / variance, MEAN + (1 - t) * SPREAD**2 * apart / variance
    return (share * (noise - clean)).sum(-1).to(x.dtype)


def normal(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@pytest.fixture(scope="module")
def exact() -> Tensor:
    """F_0^{-1}(F_1(noise)), by bisection."""
    target = normal(NOISE.double())
    low, high = torch.full_like(target, -9.0), torch.full_like(target, 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = (WEIGHT * normal((middle[..., None] - MEAN) / SPREAD)).sum(-1) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


def error(solver: str, evaluations: int, exact: Tensor) -> float:
    """Root mean square error of the points at t = 0."""
    steps = (evaluations + 1) // 2 if solver == "heun" else evaluations
    config = SamplingConfig(steps=steps, solver=solver)
    found = sample(velocity, NOISE, NOISE, FlowMatchEulerDiscreteScheduler(), config)
    return (found.double() - exact).square().mean().sqrt().item()


# measured with this file, and the order of the methods' papers; heun has one evaluation less
@pytest.mark.parametrize(
    "solver, expected",
    [
        ("euler", [0.314, 0.179, 0.129, 0.0835]),
        ("heun", [0.267, 0.0967, 0.0407, 0.0127]),
        ("dpmpp_2m", [0.219, 0.0613, 0.0252, 0.0082]),
        ("unipc", [0.145, 0.0366, 0.0148, 0.0039]),
    ],
)
def test_errors_at_4_8_12_and_20_evaluations(solver, expected, exact):
    found = [error(solver, count, exact) for count in (4, 8, 12, 20)]
    assert found == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    "solver, order", [("euler", 1.0), ("heun", 2.0), ("dpmpp_2m", 1.7), ("unipc", 2.0)]
)
def test_order_of_convergence(solver, order, exact):
    """Halving the step divides the error by 2^order. DPM-Solver++(2M) comes near 2 late: its last
    step is of first order.
    """
    found = math.log2(error(solver, 80, exact) / error(solver, 160, exact))
    assert found == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc"])
def test_a_callback_may_replace_the_latent(solver):
    """Nothing of the path before comes back: where nothing moves, the new latent stays."""
    config = SamplingConfig(steps=4, solver=solver)

    def replace(step: int, time: float, latent: Tensor) -> Tensor:
        return torch.zeros_like(latent) if step == 1 else latent

    scheduler = FlowMatchEulerDiscreteScheduler()
    still = sample(lambda x, t: torch.zeros_like(x), NOISE, NOISE, scheduler, config, replace)
    assert still.abs().max() < 1e-6
    assert not torch.equal(
        sample(velocity, NOISE, NOISE, scheduler, config, replace),
        sample(velocity, NOISE, NOISE, scheduler, config),
    )


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc"])
def test_they_start_from_the_degraded_image_too(solver, exact):
    """A straight flow is followed exactly, from any time."""
    clean = exact.float()
    config = SamplingConfig(steps=5, solver=solver, start="lq", strength=0.6)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    found = sample(lambda x, t: NOISE - clean, clean, NOISE, scheduler, config)
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-5)
