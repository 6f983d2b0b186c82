"""Keeps backbone and VAE in main memory while they rest, by accelerate's hooks.

    model        one of the two is on the GPU at a time
    sequential   one layer is on the GPU at a time: least memory, and slow

The branch stays on the GPU: it is small, and batched experts read its weights without a call.
"""

from typing import Any, Literal

import torch

from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.models.quantize import quantized_as

Offload = Literal["model", "sequential"]


def require_offload(offload: str, place: torch.device, where: str, restorer: Any) -> None:
    """Raises ValueError, with `where`, unless a restorer's weights can rest in main memory."""
    if not isinstance(restorer, Restorer):
        raise ValueError(
            f"{where}: --offload {offload} is given, and this system has no frozen backbone to"
            " keep in main memory; leave it out"
        )
    if place.type == "cpu":
        raise ValueError(
            f"--offload {offload} needs a GPU to compute on, and the device is the CPU: all weights"
            " are in main memory already; leave it out"
        )
    kind = quantized_as(restorer.network.backbone)
    if offload == "sequential" and kind is not None:
        raise ValueError(
            f"--offload sequential is given with backbone_quantize {kind}: single quantized layers"
            " cannot be moved; use --offload model, or --backbone_quantize none"
        )


def offload_to_host(restorer: Restorer, offload: Offload, place: torch.device) -> Restorer:
    """Returns the restorer; it computes on `place`, and its weights rest in main memory."""
    from accelerate import cpu_offload, cpu_offload_with_hook

    # diffusers' models are unknown to a type checker
    network: Any = restorer.network
    backbone, vae = network.backbone, restorer.vae
    network.branch.to(place)
    network.embeds, network.pooled = network.embeds.to(place), network.pooled.to(place)
    if offload == "sequential":
        for model in (backbone, vae):
            cpu_offload(model.cpu(), place, offload_buffers=True)
        return restorer
    _, first = cpu_offload_with_hook(backbone, place)
    _, second = cpu_offload_with_hook(vae, place, prev_module_hook=first)
    first.hook.prev_module_hook = second  # a large photograph asks for one, the other, and again
    return restorer
