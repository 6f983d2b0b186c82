"""DiffIR's losses and learning rates, in the recipe for motion deblurring.

Stage 1 trains the image network and the encoder that sees the clean image. Stage 2 trains the
denoiser and the condition's encoder for 100,000 iterations, then everything together.
"""

import math
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_mimdit.systems.diffir.network import SecondStage
from lit_mimdit.systems.diffir.sampler import Schedule, denoised, diffuse

FIRST_PERIODS = (92_000, 208_000)  # iterations of the two cosine cycles of stage 1
FIRST_STEPS = sum(FIRST_PERIODS)
FIRST_MINIMA = (2.85e-4, 1e-6)
FIRST_BETAS = (0.9, 0.999)  # of Adam
SECOND_BETAS = (0.9, 0.99)
PRIOR_ITERATIONS = 100_000  # of stage 2, before the joint phase
PRIOR_DECAY = (0.1, 60_000)  # factor, iterations
JOINT_DECAY = (0.5, 80_000)
LEARNING_RATE = 2e-4
EMA_DECAY = 0.999
TEMPERATURE = 0.15  # of the logged divergence

PATCHES = (192, 256, 320, 384, 464, 512)  # pixels a side, phase by phase
BATCHES = (8, 4, 2, 2, 1, 1)  # for each of 8 GPUs
FIRST_PHASES = (92_000, 80_000, 38_000, 33_000, 33_000, 24_000)  # iterations of stage 1
SECOND_PHASES = (150_000, 60_000, 50_000, 60_000, 40_000, 40_000)


def pixel_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Returns mean |y - x_0|: all of stage 1, and stage 2's pixel term."""
    return F.l1_loss(restored, clean)


def distilled_prior(
    network: SecondStage, degraded: Tensor, target: Tensor, noise: Tensor, table: Schedule
) -> Tensor:
    """Returns the prior (B, p) that stage 2 trains; gradients flow through all T steps.

    z_T = sqrt(abar_T) z* + sqrt(1 - abar_T) eps, then the whole sampler.

    Args:
        network: the second stage.
        degraded: (B, 3, H, W) in [0, 1].
        target: z*, (B, p), from stage 1's frozen encoder. Its gradient is cut.
        noise: eps, (B, p), standard normal.
        table: the tables.
    """
    state = diffuse(target.detach(), noise, len(table.beta) - 1, table)
    return denoised(network, network.condition(degraded), state, table)


def prior_loss(prior: Tensor, target: Tensor) -> Tensor:
    """Returns mean |z - z*|, the only loss of the prior phase."""
    return F.l1_loss(prior, target.detach())


def joint_loss(restored: Tensor, clean: Tensor, prior: Tensor, target: Tensor) -> Tensor:
    """Returns mean |G(x, z) - x_0| + mean |z - z*|, the loss of the joint phase."""
    return pixel_loss(restored, clean) + prior_loss(prior, target)


def prior_divergence(prior: Tensor, target: Tensor) -> Tensor:
    """Returns the sum of p* log(p* / p), averaged over the batch. It is only logged.

    p* and p are the softmaxes of z* / 0.15 and z / 0.15 over the entries of a prior.
    """
    return F.kl_div(
        torch.log_softmax(prior / TEMPERATURE, dim=1),
        torch.softmax(target.detach() / TEMPERATURE, dim=1),
        reduction="batchmean",
    )


def first_stage_rate(iteration: int, base: float = LEARNING_RATE) -> float:
    """Returns stage 1's learning rate at an iteration from 0 to 300,000.

        lr = m + (base - m) (1 + cos(pi (i - start) / period)) / 2

    m is the minimum of the cycle that holds iteration i. The published minimum of the first cycle,
    2.85e-4, is above the base, so the rate rises at first. The first start is 0, the second 92,000;
    an iteration on the border belongs to the earlier cycle.
    """
    ends = list(accumulate(FIRST_PERIODS))
    if not 0 <= iteration <= ends[-1]:
        raise ValueError(f"iteration is {iteration}: stage 1 is planned for 0 to {ends[-1]}")
    cycle = next(index for index, end in enumerate(ends) if iteration <= end)
    period, low = FIRST_PERIODS[cycle], FIRST_MINIMA[cycle]
    phase = (iteration - (ends[cycle] - period)) / period
    return low + (base - low) * (1 + math.cos(math.pi * phase)) / 2


def second_stage_rate(iteration: int, base: float = LEARNING_RATE) -> float:
    """Returns stage 2's learning rate at an iteration, which restarts with the joint phase.

    i < 100,000: lr = base 0.1^floor(i / 60,000)
    otherwise:   lr = base 0.5^floor((i - 100,000) / 80,000)
    """
    if iteration < PRIOR_ITERATIONS:
        factor, every = PRIOR_DECAY
        return base * factor ** (iteration // every)
    factor, every = JOINT_DECAY
    return base * factor ** ((iteration - PRIOR_ITERATIONS) // every)


def progressive_phase(iteration: int, phases: tuple[int, ...] = FIRST_PHASES) -> int:
    """Returns the index in PATCHES and BATCHES at an iteration; the last phase does not end."""
    ends = list(accumulate(phases))
    return next((index for index, end in enumerate(ends) if iteration < end), len(ends) - 1)


def demand_room(side: int) -> None:
    """Raises ValueError if crops of `side` pixels are smaller than the largest patch."""
    if side < max(PATCHES):
        raise ValueError(
            f"data.crop is {side}, and model.progressive cuts patches of up to {max(PATCHES)}"
            " pixels; set data.crop to that, or progressive to false"
        )


def largest_patches(batch: int, side: int) -> tuple[int, int]:
    """Returns images and patch of the phase that has the most pixels, of `batch` crops.

    Raises:
        ValueError: the crops of `side` pixels are smaller than the largest patch.
    """
    demand_room(side)
    taken = [(min(batch, count), patch) for count, patch in zip(BATCHES, PATCHES, strict=True)]
    return max(taken, key=lambda phase: phase[0] * phase[1] ** 2)


def cut_patches(
    batch: dict[str, Any], iteration: int, phases: tuple[int, ...] = FIRST_PHASES
) -> dict[str, Any]:
    """Returns as many images as an iteration takes, cut at one place to its patch.

    The place comes from the first image's seed. An image's seed and names are kept.

    Args:
        batch: of one device: `lq` and `gt` (B, 3, H, H), `seed` (B,), and lists of B names.
        iteration: as the publication counts.
        phases: iterations of the stage's phases.

    Raises:
        ValueError: the crops are smaller than the largest patch.
    """
    side = batch["lq"].shape[-1]
    demand_room(side)
    phase = progressive_phase(iteration, phases)
    count, patch = BATCHES[phase], PATCHES[phase]
    draw = torch.Generator().manual_seed(int(batch["seed"][0]))
    top, left = torch.randint(side - patch + 1, (2,), generator=draw).tolist()
    cut = {name: value[:count] for name, value in batch.items()}
    for name in ("lq", "gt"):
        cut[name] = cut[name][..., top : top + patch, left : left + patch]
    return cut
