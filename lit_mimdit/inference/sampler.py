"""Solvers of the probability-flow ODE dx/dt = v(x, t) from t = 1 (noise) to t = 0.

They know nothing of the network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lit_mimdit.inference.multistep import MultistepSolver, Velocity
from lit_mimdit.models.flow import interpolate

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler

Colour = Literal["none", "adain", "wavelet"]
Solver = Literal["euler", "heun", "dpmpp_2m", "unipc"]
# (step, its time, the latent after it) -> the latent to go on from; None: no step more
OnStep = Callable[[int, float, Tensor], Tensor | None]


@dataclass
class SamplingConfig:
    """The way in which a restored latent is drawn.

    Args:
        steps: solver steps; 40 in the paper.
        solver: how steps are taken. `euler`, the paper's, is of first order, the others of second.
            `heun` evaluates the network twice a step, `dpmpp_2m` and `unipc` once. For 4 steps or
            more, `unipc` comes nearest to the end of the path (docs/results/costs.md).
        start: `noise` starts from pure noise. `lq` starts from the degraded latent, mixed with
            noise at time `strength`.
        strength: time in (0, 1] at which the start `lq` begins; 1 is the same as `noise`.
        tile: side in pixels of the tiles that larger images are cut into. Their velocities are
            blended at every step.
        overlap: pixels that neighbouring tiles share.
        tile_batch: tiles computed at once.
        overview: longer side in pixels of a small copy of a larger image. It is restored in one
            piece, and the tiles take its light and colours (inference/overview.py). 0 does without.
        overview_samples: how many times that copy is restored, from other noise. Their mean tells
            the light of the scene. With more than 1, an image that is not larger is its own copy.
        longest: longer side in pixels to which larger images are reduced before they are sampled.
            The result is enlarged again. This is so only where a fidelity network brings detail
            back, and that with the weight 1. 0 reduces none.
        guidance: scale of classifier-free guidance. 1 does without. More follows the prompt further
            than the network would by itself, at two evaluations a step. It needs a prompt, and a
            branch trained with prompt.dropout.
        colour: how colours are brought back to the degraded image's, where a degradation leaves
            them alone. `adain` takes mean and deviation of each channel, `wavelet` the low
            frequencies. `none` does without.
        condition_gb: GiB that the keys and values of an image's tiles may take. What does not fit
            is computed again at every step, with the same result.
    """

    steps: int = 40
    solver: Solver = "euler"
    start: Literal["noise", "lq"] = "noise"
    strength: float = 1.0
    tile: int = 512
    overlap: int = 64
    tile_batch: int = 4
    overview: int = 0
    overview_samples: int = 1
    longest: int = 0
    guidance: float = 1.0
    colour: Colour = "none"
    condition_gb: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampling.steps is {self.steps}: at least 1 is needed")
        if self.solver not in get_args(Solver):
            raise ValueError(
                f"sampling.solver is {self.solver!r}: choose among {', '.join(get_args(Solver))}"
            )
        if not 0 < self.strength <= 1:
            raise ValueError(f"sampling.strength is {self.strength}: it must lie in (0, 1]")
        if self.tile < 1 or not 0 <= self.overlap < self.tile:
            raise ValueError(
                f"sampling.overlap is {self.overlap} with tiles of {self.tile} px: it must be 0 or"
                " more and less than the tile"
            )
        if self.tile_batch < 1:
            raise ValueError(f"sampling.tile_batch is {self.tile_batch}: at least 1 is needed")
        if self.overview < 0:
            raise ValueError(
                f"sampling.overview is {self.overview}: it must be 0 or more pixels; 0 does without"
            )
        if self.longest < 0:
            raise ValueError(
                f"sampling.longest is {self.longest}: it must be 0 or more pixels; 0 reduces none"
            )
        if self.overview_samples < 1:
            raise ValueError(
                f"sampling.overview_samples is {self.overview_samples}: it must be at least 1"
            )
        if self.colour not in get_args(Colour):
            raise ValueError(
                f"sampling.colour is {self.colour!r}: choose among {', '.join(get_args(Colour))}"
            )
        if not 0 <= self.condition_gb < float("inf"):
            raise ValueError(f"sampling.condition_gb is {self.condition_gb}: it must be 0 or more")
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(
                f"sampling.guidance is {self.guidance}: it must be 0 or more; 1 does without"
            )


# s_i = 1 - i / n, i = 0..n, then the scheduler's own shift
# (arXiv 2403.03206, section 5.3.2; diffusers' Flux pipeline)
def times(scheduler: "FlowMatchEulerDiscreteScheduler", config: SamplingConfig) -> list[float]:
    """`steps` + 1 times from 1 to 0 by the scheduler's shift; start "lq" squeezes them into [0,
    strength].

    Left to itself, the scheduler spends its last step on a time of 0.001, which changes nothing:
    half of a sample of 2 steps.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    own = FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
    own.set_timesteps(sigmas=[1.0 - step / config.steps for step in range(config.steps)])
    top = config.strength if config.start == "lq" else 1.0
    return [float(sigma) * top for sigma in own.sigmas]


# x_{s+1} = x_s + (t_{s+1} - t_s) v(x_s, t_s)
def euler(velocity: Velocity, x: Tensor, t: list[float]) -> Tensor:
    """Euler's method along the times `t`."""
    for now, after in zip(t[:-1], t[1:], strict=True):
        x = x + (after - now) * velocity(x, now)
    return x


# x' = x_s + h v(x_s, t_s);  x_{s+1} = x_s + h / 2 (v(x_s, t_s) + v(x', t_{s+1}))
def heun(velocity: Velocity, x: Tensor, t: list[float]) -> Tensor:
    """Heun's method; the last step, to t = 0, is an Euler step, since the velocity at t = 0 says
    nothing of the noise.
    """
    for now, after in zip(t[:-1], t[1:], strict=True):
        slope = velocity(x, now)
        ahead = x + (after - now) * slope
        x = ahead if after == 0.0 else x + (after - now) * 0.5 * (slope + velocity(ahead, after))
    return x


def evaluations(config: SamplingConfig) -> int:
    """Returns how often the network is evaluated for one sample."""
    return 2 * config.steps - 1 if config.solver == "heun" else config.steps


def start_latent(z_lq: Tensor, noise: Tensor, config: SamplingConfig) -> Tensor:
    """Returns where the solver starts: noise, or (1 - strength) z_lq + strength noise."""
    if config.start == "noise":
        return noise
    return interpolate(z_lq, noise, torch.full((len(z_lq),), config.strength, device=z_lq.device))


def sample(
    velocity: Velocity,
    z_lq: Tensor,
    noise: Tensor,
    scheduler: "FlowMatchEulerDiscreteScheduler",
    config: SamplingConfig,
    on_step: OnStep | None = None,
) -> Tensor:
    """Returns the restored latent (B, C, H, W) for degraded latents of the same shape.

    `on_step` sees the latent after each step, and may replace it or stop.
    """
    along = times(scheduler, config)
    solver: Callable[[Velocity, Tensor, list[float]], Tensor]
    if config.solver == "euler":
        solver = euler
    elif config.solver == "heun":
        solver = heun
    else:
        solver = MultistepSolver(config.solver, along)
    x = start_latent(z_lq, noise, config)
    for step, ends in enumerate(pairwise(along)):
        x = solver(velocity, x, list(ends))
        if on_step is not None:
            changed = on_step(step, ends[0], x)
            if changed is None:
                break
            x = changed
    return x
