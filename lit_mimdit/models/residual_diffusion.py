"""Residual diffusion: from a degraded image to a clean one in a few steps.

RDDM (arXiv 2308.13712) diffuses an image toward its degraded version and noise; DiffUIR (arXiv
2403.11157) adds delta, which pulls all degradations toward one distribution. DiffUIR and FoundIR
differ only in delta's last value and in the number of steps.

Images are (B, 3, H, W). Inside the process they lie in [-1, 1]; `to_process` and `from_process`
change the range. A time step t is an integer from 0 to T - 1, and -1 is the end.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_mimdit.models.residual_unet import ResidualUNet

TIMESTEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02
DELTA_START = 1e-6
SUM_SCALE = 0.01  # variance of the noise that sampling starts from; training ends at 1
END = -1

Predict = Callable[[Tensor, Tensor], Tensor]  # ([x_t, x_in] (B, 6, H, W), times (B,)) -> residual


@dataclass(frozen=True)
class Schedule:
    """Holds the float32 tables of the process, each (T,).

        abar_t = product of 1 - beta_i up to t, beta from 1e-4 to 0.02
        a_t = 1 - sqrt(abar_t)               share of the residual
        b_t = sqrt(1 - abar_t)               deviation of the noise
        dl_t = clip(sum of delta_i up to t)  share of the degraded image that is taken away,
                                             delta from 1e-6 to `delta_end`

    Attributes:
        residual: a_t, from 0.00005 to 0.9936.
        variance: b_t^2.
        noise: b_t.
        delta: dl_t, in [0, 1].
        increments: delta_t.
    """

    residual: Tensor
    variance: Tensor
    noise: Tensor
    delta: Tensor
    increments: Tensor

    @property
    def timesteps(self) -> int:
        """The number T of time steps."""
        return len(self.residual)

    def time(self, t_B: Tensor) -> Tensor:
        """Returns the real times 1000 a_t (B,) that the network is given, in float32."""
        return 1000 * self.residual.to(t_B.device)[t_B]


def schedule(delta_end: float, timesteps: int = TIMESTEPS) -> Schedule:
    """Returns the tables, computed in float32 like the published ones.

    Raises:
        ValueError: if `delta_end` or the number of steps makes no process.
    """
    if delta_end < 0 or timesteps < 2:
        raise ValueError(
            f"delta_end is {delta_end} and timesteps {timesteps}: the process needs a delta of at"
            " least 0 and 2 steps, published are 0.0018 or 0.0014 and 1000"
        )
    # on the CPU also where a dry run builds networks without values
    place: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    beta = torch.linspace(BETA_START, BETA_END, timesteps, **place)
    kept = torch.cumprod(1 - beta, dim=0)
    increments = torch.linspace(DELTA_START, delta_end, timesteps, **place)
    return Schedule(
        residual=1 - kept.sqrt(),
        variance=1 - kept,
        noise=(1 - kept).sqrt(),
        delta=increments.cumsum(0).clamp(0, 1),
        increments=increments,
    )


def sample_noise_and_times(
    seeds: Tensor, shape: Sequence[int], timesteps: int
) -> tuple[Tensor, Tensor]:
    """Returns standard normal noise (B, *shape) and time steps (B,), uniform in 0 .. T - 1.

    Each image's numbers depend on its seed alone, and are drawn on the CPU.
    """
    noise = torch.empty(len(seeds), *shape)
    t_B = torch.empty(len(seeds), dtype=torch.int64)
    for row, seed in enumerate(seeds.tolist()):
        generator = torch.Generator().manual_seed(seed)
        noise[row] = torch.randn(tuple(shape), generator=generator)
        t_B[row] = torch.randint(timesteps, (), generator=generator)
    return noise, t_B


def to_process(image: Tensor) -> Tensor:
    """Returns 2 x - 1, an image in [0, 1] as one in [-1, 1]."""
    return 2 * image - 1


def from_process(image: Tensor) -> Tensor:
    """Returns (x + 1) / 2, an image in [-1, 1] as one in [0, 1]."""
    return (image + 1) / 2


def diffuse(clean: Tensor, degraded: Tensor, noise: Tensor, t_B: Tensor, table: Schedule) -> Tensor:
    """Returns x_t = x_0 + a_t (x_in - x_0) + b_t eps - dl_t x_in.

    Args:
        clean: x_0, and degraded: x_in, both in [-1, 1].
        noise: eps, standard normal.
        t_B: a time step for each image, 0 to T - 1.
        table: the tables.
    """
    a, b, dl = (_at(row, t_B, clean) for row in (table.residual, table.noise, table.delta))
    return clean + a * (degraded - clean) + b * noise - dl * degraded


def noise_of(
    x_t: Tensor, degraded: Tensor, residual: Tensor, t_B: Tensor, table: Schedule
) -> Tensor:
    """Returns the noise that x_t holds if `residual` is right.

    eps = (x_t - x_in - (a_t - 1) r + dl_t x_in) / b_t, which is `diffuse` with x_0 = x_in - r.
    """
    a, b, dl = (_at(row, t_B, x_t) for row in (table.residual, table.noise, table.delta))
    return (x_t - degraded - (a - 1) * residual + dl * degraded) / b


def times(steps: int, timesteps: int = TIMESTEPS) -> list[int]:
    """Returns the time steps that sampling visits, from T - 1 down to -1, `steps` + 1 of them.

    They are evenly spread and truncated toward 0: 999, 665, 332, -1 for 3 steps.

    Raises:
        ValueError: if `steps` is not from 1 to T.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(
            f"steps is {steps}: sampling takes from 1 to {timesteps} of them, published are 3 or 4"
        )
    places = torch.linspace(END, timesteps - 1, steps + 1, device="cpu")
    return places.int().flip(0).tolist()


class Step(NamedTuple):
    """The values that one sampling step saw and predicted, all in [-1, 1] except the state.

    Attributes:
        t: the time step.
        state: x_t, (B, 3, H, W).
        residual: the clamped prediction of x_in - x_0.
        clean: the clamped x_0 that follows from it.
    """

    t: int
    state: Tensor
    residual: Tensor
    clean: Tensor


def trajectory(
    predict: Predict,
    degraded: Tensor,
    noise: Tensor,
    table: Schedule,
    steps: int,
    eta: float = 0.0,
    draw: Callable[[Tensor], Tensor] = torch.randn_like,
    sum_scale: float = SUM_SCALE,
) -> Iterator[Step]:
    """Yields the steps of the few-step sampler; the last one's `clean` is the result.

        x_T = (1 - dl_T) x_in + sqrt(sum_scale) eps
        r = clamp(U([x_t, x_in], 1000 a_t), -1, 1)
        x_s = x_t - (a_t - a_s) r + (dl_t - dl_s) x_in + sigma n
        sigma^2 = eta (b_t^2 - b_s^2) b_s^2 / b_t^2
        x_0 = clamp(x_in - r, -1, 1) at the last step

    The noise is not taken away, as published: the result depends on the last residual alone.

    Args:
        predict: the network U.
        degraded: x_in in [-1, 1].
        noise: eps for the start, standard normal.
        table: the tables.
        steps: how many times the network is called.
        eta: 0 for no noise on the way, as published.
        draw: returns standard normal noise like a tensor; called only where eta is above 0.
        sum_scale: variance of the noise at the start.
    """
    a = table.residual.tolist()
    dl = table.delta.tolist()
    variance = table.variance.tolist()
    state = (1 - dl[-1]) * degraded + sum_scale**0.5 * noise
    visited = times(steps, table.timesteps)
    for t, s in zip(visited[:-1], visited[1:], strict=True):
        t_B = torch.full((len(state),), t, device=state.device)
        residual = predict(torch.cat([state, degraded], dim=1), table.time(t_B)).clamp(-1, 1)
        yield Step(t, state, residual, (degraded - residual).clamp(-1, 1))
        if s == END:
            return
        state = state - (a[t] - a[s]) * residual + (dl[t] - dl[s]) * degraded
        if eta > 0:
            spread = eta * (variance[t] - variance[s]) * variance[s] / variance[t]
            state = state + spread**0.5 * draw(state)


def restore(
    predict: Predict,
    degraded: Tensor,
    noise: Tensor,
    table: Schedule,
    steps: int,
    eta: float = 0.0,
    draw: Callable[[Tensor], Tensor] = torch.randn_like,
    sum_scale: float = SUM_SCALE,
) -> Tensor:
    """Returns the restored image (B, 3, H, W) in [0, 1] of a degraded one in [0, 1].

    The arguments are those of `trajectory`, but for the range of `degraded`.
    """
    steps_taken = trajectory(
        predict, to_process(degraded), noise, table, steps, eta, draw, sum_scale
    )
    return from_process(deque(steps_taken, maxlen=1).pop().clean)


class ResidualDiffusion(nn.Module):
    """Restores with a U-Net and the process that it was trained for.

    Args:
        dim, dim_mults: sizes of the U-Net.
        delta_end: the last delta.
        sampling_timesteps: steps of the sampler.
        timesteps: T.
        sum_scale: variance of the noise that sampling starts from.
        ddim_sampling_eta: 0 for a sampler without noise on the way.
    """

    def __init__(
        self,
        dim: int,
        dim_mults: Sequence[int],
        delta_end: float,
        sampling_timesteps: int,
        timesteps: int = TIMESTEPS,
        sum_scale: float = SUM_SCALE,
        ddim_sampling_eta: float = 0.0,
    ) -> None:
        super().__init__()
        self.unet = ResidualUNet(dim, dim_mults)
        self.table = schedule(delta_end, timesteps)
        self.delta_end = delta_end
        self.sampling_timesteps = sampling_timesteps
        self.sum_scale = sum_scale
        self.eta = ddim_sampling_eta

    def forward(self, degraded: Tensor, noise: Tensor) -> Tensor:
        """Returns restored images (B, 3, H, W) in [0, 1] of degraded ones in [0, 1].

        noise: standard normal, like `degraded`. Images may have any size.
        """
        return restore(
            self.unet,
            degraded,
            noise,
            self.table,
            self.sampling_timesteps,
            self.eta,
            sum_scale=self.sum_scale,
        )

    def loss(self, degraded: Tensor, clean: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """Returns the mean of `errors`, a scalar."""
        return self.errors(degraded, clean, noise, t_B).mean()

    def errors(self, degraded: Tensor, clean: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """Returns mean |U([x_t, x_in], 1000 a_t) - (x_in - x_0)| of each image, (B,).

        Args:
            degraded, clean: (B, 3, H, W) in [0, 1].
            noise: standard normal.
            t_B: a time step for each image, uniform in 0 .. T - 1.
        """
        degraded, clean = to_process(degraded), to_process(clean)
        x_t = diffuse(clean, degraded, noise, t_B, self.table)
        predicted = self.unet(torch.cat([x_t, degraded], dim=1), self.table.time(t_B))
        return (predicted - (degraded - clean)).abs().mean((1, 2, 3))


def _at(row: Tensor, t_B: Tensor, like: Tensor) -> Tensor:
    """Returns a table's values at time steps as (B, 1, 1, 1), to be multiplied with images."""
    return row.to(like.device)[t_B].to(like.dtype)[:, None, None, None]
