"""DiffIR's diffusion over priors: its schedule, its noising, and its sampler without noise.

Legend: B images, p length of a prior, T steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.models.restormer_network import MULTIPLE
from lit_mimdit.systems.diffir.network import SecondStage


@dataclass(frozen=True)
class Schedule:
    """Holds the tables of the diffusion, each (T,), computed in float64 and kept in float32.

        beta = linspace(sqrt(b0), sqrt(b1), T)^2,  abar = product of 1 - beta,  abar_-1 = 1
        c1 = beta sqrt(abar_i-1) / (1 - abar_i),   c2 = (1 - abar_i-1) sqrt(1 - beta) / (1 - abar_i)

    Attributes:
        beta: the variances of the steps.
        kept: abar.
        kept_before: abar of the step before.
        from_prediction: c1, the weight of the predicted prior.
        from_state: c2, the weight of the noisy one.
    """

    beta: Tensor
    kept: Tensor
    kept_before: Tensor
    from_prediction: Tensor
    from_state: Tensor


def schedule(timesteps: int = 4, linear_start: float = 0.1, linear_end: float = 0.99) -> Schedule:
    """Returns the tables.

    Raises:
        ValueError: if the arguments make no schedule.
    """
    if timesteps < 1 or not 0 < linear_start <= linear_end < 1:
        raise ValueError(
            f"timesteps is {timesteps}, linear_start {linear_start} and linear_end {linear_end}: a"
            " schedule needs at least 1 step and variances that rise between 0 and 1"
        )
    # on the CPU also where a dry run builds networks without values
    place: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    beta = torch.linspace(linear_start**0.5, linear_end**0.5, timesteps, **place) ** 2
    kept = torch.cumprod(1 - beta, dim=0)
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    return Schedule(
        beta=beta.float(),
        kept=kept.float(),
        kept_before=before.float(),
        from_prediction=(beta * before.sqrt() / (1 - kept)).float(),
        from_state=((1 - before) * (1 - beta).sqrt() / (1 - kept)).float(),
    )


def diffuse(prior: Tensor, noise: Tensor, step: int, table: Schedule) -> Tensor:
    """Returns z_i = sqrt(abar_i) z_0 + sqrt(1 - abar_i) eps, (B, p)."""
    kept = table.kept.tolist()[step]
    return kept**0.5 * prior + (1 - kept) ** 0.5 * noise


class Step(NamedTuple):
    """The values that one sampling step saw and made.

    Attributes:
        step: i, T - 1 first and 0 last.
        state: z_i before the step, (B, p).
        prediction: the prior z_0 that the denoiser predicts.
        result: z after the step.
    """

    step: int
    state: Tensor
    prediction: Tensor
    result: Tensor


def trajectory(
    network: SecondStage, condition: Tensor, state: Tensor, table: Schedule
) -> Iterator[Step]:
    """Yields all steps: z <- c1_i D(z, i, c) + c2_i z. No noise is added, as published.

    Args:
        network: the second stage, whose denoiser D is called.
        condition: c, (B, p), from the degraded image.
        state: z_T, (B, p): standard normal to restore, a noised prior to train.
        table: the tables, one entry for each step.
    """
    predicted, kept = table.from_prediction.tolist(), table.from_state.tolist()
    for step in reversed(range(len(table.beta))):
        prediction = network.denoiser(state, step, condition)
        before = state
        state = predicted[step] * prediction + kept[step] * state
        yield Step(step, before, prediction, state)


def denoised(network: SecondStage, condition: Tensor, state: Tensor, table: Schedule) -> Tensor:
    """Returns the prior (B, p) at the end of `trajectory`."""
    for step in trajectory(network, condition, state, table):
        state = step.result
    return state


def schedule_of(network: SecondStage) -> Schedule:
    """Returns the tables that a network was built for."""
    return schedule(network.timesteps, network.linear_start, network.linear_end)


def generate(network: SecondStage, degraded: Tensor, noise: Tensor) -> Tensor:
    """Returns restored images (B, 3, H, W), not clamped, of degraded ones of any size.

    Images are padded by reflection to multiples of 8, restored whole, and cropped.

    Args:
        network: the second stage.
        degraded: (B, 3, H, W) in [0, 1], RGB.
        noise: z_T, (B, p), standard normal.
    """
    height, width = degraded.shape[-2:]
    padded = pad_to_multiple(degraded, MULTIPLE)
    prior = denoised(network, network.condition(padded), noise, schedule_of(network))
    return network.restorer(padded, prior)[..., :height, :width]


def restore(network: SecondStage, degraded: Tensor, noise: Tensor) -> Tensor:
    """Returns what `generate` does, clamped to [0, 1]."""
    return generate(network, degraded, noise).clamp(0, 1)
