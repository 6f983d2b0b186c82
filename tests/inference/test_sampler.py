"""Solvers and times against diffusers' own scheduler."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from lit_mimdit.inference.sampler import (
    SamplingConfig,
    euler,
    evaluations,
    heun,
    sample,
    start_latent,
    times,
)

LQ, NOISE = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(0)).unbind()


def curved(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.sin(3 * x) * (0.5 + t) - x


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 40])
def test_times_are_even_steps_with_the_schedulers_shift(shift, steps):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    own = times(scheduler, SamplingConfig(steps=steps))
    even = [1 - step / steps for step in range(steps + 1)]
    assert own == pytest.approx([shift * s / (1 + (shift - 1) * s) for s in even], abs=1e-6)
    assert own[0] == 1.0 and own[-1] == 0.0 and len(own) == steps + 1
    squeezed = times(scheduler, SamplingConfig(steps=steps, start="lq", strength=0.4))
    assert squeezed == pytest.approx([0.4 * t for t in own])
    assert times(scheduler, SamplingConfig(steps=steps, start="noise", strength=0.4)) == own


def test_asking_for_times_leaves_the_scheduler_alone():
    scheduler = FlowMatchEulerDiscreteScheduler()
    before = scheduler.sigmas.clone()
    times(scheduler, SamplingConfig(steps=3))
    assert torch.equal(scheduler.sigmas, before)


def test_euler_is_diffusers_step():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    ours = sample(curved, LQ, NOISE, scheduler, SamplingConfig(steps=7))
    scheduler.set_timesteps(sigmas=[1 - step / 7 for step in range(7)])
    x = NOISE
    for timestep in scheduler.timesteps:
        x = scheduler.step(curved(x, timestep.item() / 1000.0), timestep, x, return_dict=False)[0]
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-5)


def test_heun_is_of_second_order():
    """Halving the step divides the error by about 2 (Euler) and 4 (Heun), on an interval that ends
    before t = 0.
    """

    def error(solver, steps: int) -> float:
        grid = torch.linspace(1.0, 0.2, steps + 1, dtype=torch.float64).tolist()
        exact = euler(
            curved, NOISE.double(), torch.linspace(1.0, 0.2, 20001, dtype=torch.float64).tolist()
        )
        return (solver(curved, NOISE.double(), grid) - exact).abs().max().item()

    assert error(euler, 40) / error(euler, 80) == pytest.approx(2.0, rel=0.15)
    assert error(heun, 20) / error(heun, 40) == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize("steps", [1, 3])
def test_evaluations_counts_the_calls(solver, steps):
    calls = []
    config = SamplingConfig(steps=steps, solver=solver)
    sample(
        lambda x, t: calls.append(t) or curved(x, t),
        LQ,
        NOISE,
        FlowMatchEulerDiscreteScheduler(),
        config,
    )
    assert len(calls) == evaluations(config) and 0.0 not in calls


def test_where_the_solver_starts():
    assert torch.equal(start_latent(LQ, NOISE, SamplingConfig()), NOISE)
    torch.testing.assert_close(
        start_latent(LQ, NOISE, SamplingConfig(start="lq", strength=0.25)), 0.75 * LQ + 0.25 * NOISE
    )
    assert torch.equal(start_latent(LQ, NOISE, SamplingConfig(start="lq", strength=1.0)), NOISE)


def test_from_lq_with_the_exact_velocity_comes_back_to_lq():
    config = SamplingConfig(steps=5, start="lq", strength=0.6)
    restored = sample(lambda x, t: NOISE - LQ, LQ, NOISE, FlowMatchEulerDiscreteScheduler(), config)
    torch.testing.assert_close(restored, LQ, rtol=0, atol=1e-5)


WRONG = [
    {"steps": 0},
    {"solver": "rk4"},
    {"strength": 0.0},
    {"strength": 1.1},
    {"overlap": 512},
    {"overlap": -1},
    {"tile_batch": 0},
    {"colour": "wavelets"},
    {"condition_gb": -1.0},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_impossible_settings(wrong):
    with pytest.raises(ValueError, match=f"sampling.{next(iter(wrong))} is"):
        SamplingConfig(**wrong)
