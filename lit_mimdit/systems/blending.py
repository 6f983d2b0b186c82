"""Blends finished weights with those that a training started from (WiSE-FT, arXiv 2109.01903)."""

import torch
from torch import Tensor, nn


def require_share(blend: float, init: str | None) -> None:
    """Raises ValueError unless `blend` is a share in (0, 1], and below 1 there is an `init`."""
    if not 0 < blend <= 1 or (blend < 1 and init is None):
        raise ValueError(
            f"model.blend is {blend} and model.init {init}: give a share in (0, 1], and below 1"
            " the network to blend with"
        )


# w = (1 - b) w_init + b w_trained
@torch.no_grad()
def blend_with(start: dict[str, Tensor], trained: nn.Module, blend: float) -> None:
    """Moves the weights of a trained module back towards those that it started from."""
    if blend < 1:
        for name, value in trained.state_dict().items():
            value.copy_(start[name].to(value).lerp(value, blend))
