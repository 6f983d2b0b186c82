"""The costs of a system.

These are trained parameters, floating-point operations as PyTorch's FlopCounterMode counts them,
and seconds of restoring. What does not apply to a system is None.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.systems.base import ImageRestorer, RestorationSystem

REPEATS, PATIENCE = 5, 10.0  # restorations that are timed; none begins after so many seconds


@torch.no_grad()
def cost(system: RestorationSystem, crop: int) -> dict[str, Any]:
    """Returns the cost of a system, and of one image of `crop` x `crop` pixels.

    A multiplication and an addition are two FLOPs; element-wise work is not counted.

    Args:
        system: with its weights.
        crop: side of the image in pixels.

    Returns:
        trained_parameters: None for a system that is not trained.
        branch_flops: of the branch with its patch embedding, spent once an image; None without a
            backbone.
        forward_flops: of the whole forward pass of a training step, without the VAE; None without a
            backbone.
        restore_flops: of restoring the image: all sampling steps, with the VAE. None for work that
            PyTorch does not do.
        seconds_per_megapixel: of restoring it where the system is; the fastest of a few times.
        image: its size in words.
    """
    restorer = system.restorer()
    trained = sum(p.numel() for p in system.trained.parameters()) if system.TRAINABLE else None
    image = torch.rand(1, 3, crop, crop, generator=torch.Generator().manual_seed(0))
    branch_flops, forward_flops = _of_training(restorer, crop)
    # the first restoration is counted, and the later ones, with all caches warm, are timed
    restore_flops = counted(lambda: restorer(image, torch.tensor([0])), system)
    return {
        "trained_parameters": trained,
        "branch_flops": branch_flops,
        "forward_flops": forward_flops,
        "restore_flops": restore_flops or None,
        "seconds_per_megapixel": seconds_per_megapixel(restorer, image),
        "image": f"{crop} x {crop}",
    }


def _of_training(restorer: ImageRestorer, crop: int) -> tuple[int | None, int | None]:
    """FLOPs of the branch and of the whole forward pass; None without a backbone."""
    if not isinstance(restorer, Restorer):
        return None, None
    network, side = restorer.network, crop // restorer.factor
    channels = network.backbone.config.in_channels
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, channels, side, side, generator=generator).to(restorer.device)
    t = torch.full((1,), 0.5, device=z.device)
    branch = counted(lambda: network.decide(z), network)
    whole = counted(lambda: network(z, t, network.condition(z)), network)
    return branch, whole


def counted(work: Callable[[], object], module: nn.Module) -> int:
    """Returns FLOPs of a piece of work that `module` does."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # the counter's hooks cannot take a parameter that is an output, such as a gate
    module.requires_grad_(False)
    try:
        # the counter knows the products of this kernel, not those of the CPU's flash kernel
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            work()
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return counter.get_total_flops()


def seconds_per_megapixel(
    restorer: ImageRestorer, image: Tensor, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Returns seconds that restoring takes, over the image's megapixels (of 10^6 pixels).

    Args:
        restorer: what restores; it returns images on the CPU, so nothing is pending then.
        image: (1, 3, H, W) in [0, 1].
        clock: returns seconds.
    """
    fastest, begun = float("inf"), clock()
    for _ in range(REPEATS):
        start = clock()
        restorer(image, torch.tensor([0]))
        end = clock()
        fastest = min(fastest, end - start)
        if end - begun > PATIENCE:
            break
    return fastest / (image.shape[-2] * image.shape[-1] / 1e6)
