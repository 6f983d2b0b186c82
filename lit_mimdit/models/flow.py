"""Rectified flow: every formula of the objective, each a pure function.

x0 = clean latent, eps = standard normal noise, t in [0, 1]; t = 0 is the clean latent and t = 1
pure noise. Shapes (B, C, H, W) and (B,).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass
class FlowConfig:
    """Time sampling and loss weighting.

    Args:
        time_mean: mean `m` of the logit-normal `t = sigmoid(m + s n)`. 0 is SD3's.
        time_std: deviation `s` of the logit-normal. 1 is SD3's.
        time_shift: shift of `t` towards noise, for the resolution. 1 leaves `t` alone.
        weighting: `velocity` takes the mean squared error of the velocity, as SD3 and the paper do.
            `clean` takes that of the clean latent which the velocity implies.
    """

    time_mean: float = 0.0
    time_std: float = 1.0
    time_shift: float = 1.0
    weighting: Literal["velocity", "clean"] = "velocity"

    def __post_init__(self) -> None:
        if self.time_std <= 0 or self.time_shift <= 0:
            raise ValueError(
                f"flow.time_std is {self.time_std} and flow.time_shift {self.time_shift}: both must"
                " be positive"
            )


def _like(t: Tensor, x: Tensor) -> Tensor:
    return t.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)


# x_t = (1 - t) x0 + t eps  (Liu et al., arXiv 2209.03003; Esser et al., arXiv 2403.03206, eq. 13)
def interpolate(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Returns the noisy latent at time t."""
    return (1.0 - _like(t, x0)) * x0 + _like(t, x0) * eps


# v = dx_t / dt = eps - x0
def velocity(x0: Tensor, eps: Tensor) -> Tensor:
    """Returns the target of the regression."""
    return eps - x0


# x0 = x_t - t v
def clean(x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """Returns the clean latent that a velocity at (x_t, t) points back to."""
    return x_t - _like(t, x_t) * v


# t = sigmoid(m + s n), n ~ N(0, 1)                         (arXiv 2403.03206, eq. 19)
def logit_normal(n: Tensor, mean: float, std: float) -> Tensor:
    """Returns times from standard normal numbers `n`."""
    return torch.sigmoid(mean + std * n)


# t' = a t / (1 + (a - 1) t)  (arXiv 2403.03206, eq. 23, with a = sqrt(m / n))
def shift(t: Tensor, a: float) -> Tensor:
    """Returns times moved towards noise (a > 1)."""
    return a * t / (1.0 + (a - 1.0) * t)


def sample_times(n: Tensor, config: FlowConfig) -> Tensor:
    """Returns the training times (B,) from standard normal numbers (B,)."""
    return shift(logit_normal(n, config.time_mean, config.time_std), config.time_shift)


# L = w(t) mean |v_hat - v|^2; w = 1, or t^2: since x0_hat - x0 = -t (v_hat - v), the error of the
# clean latent
def loss_per_sample(predicted: Tensor, target: Tensor, t: Tensor, weighting: str) -> Tensor:
    """Returns the mean squared error of each sample, (B,) float32."""
    error = (predicted.float() - target.float()).square().flatten(1).mean(1)
    return error * t.float().square() if weighting == "clean" else error


def sample_noise(seeds: Tensor, shape: tuple[int, ...], stream: int = 0) -> tuple[Tensor, Tensor]:
    """Noise (B, *shape) and one more normal number (B,) a sample, each from its own seed (B,)
    int64, on the CPU.

    A sample's draw does not depend on its neighbours, on the batch size, on the rank or on the
    device. Another `stream`, a number of bits that change in the seeds, is another draw.
    """
    noise, extra = torch.empty(len(seeds), *shape), torch.empty(len(seeds))
    for row, seed in enumerate(seeds.tolist()):
        generator = torch.Generator().manual_seed(seed ^ stream)
        noise[row] = torch.randn(shape, generator=generator)
        extra[row] = torch.randn((), generator=generator)
    return noise, extra


# E |v - v_hat|^2 of the best linear-Gaussian guess for x0 ~ N(0, 1): v_hat = E[v | x_t] = (2t - 1)
# / ((1-t)^2 + t^2) x_t
def gaussian_baseline(t: Tensor) -> Tensor:
    """Returns the velocity error of the optimal predictor of white unit-variance data.

    It is what a prior has to beat at each t.
    """
    power = (1.0 - t).square() + t.square()
    return 2.0 - (2.0 * t - 1.0).square() / power
