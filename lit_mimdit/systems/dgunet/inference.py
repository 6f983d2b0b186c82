"""Restores an image with DGUNet or DGUNet+."""

import torch
from torch import Tensor

from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.dgunet.network import DGUNetNetwork


@torch.no_grad()
def restore(network: DGUNetNetwork, image: Tensor, ensemble: bool = False) -> Tensor:
    """Returns the last stage's picture at the full size of the input, clamped to [0, 1].

    image: (B, 3, H, W), RGB in [0, 1], any size. It is padded by reflection to multiples of 8, as
        the authors do for RealBlur. Smaller ones than the network takes are extended by their
        edges.
    ensemble: the mean over the 8 flips and rotations, as they do for SIDD and DND.
    """

    def once(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        least = 8 if max(height, width) > 8 else 16  # the network refuses 8 x 8
        return network(pad_to_multiple(x, 8, least))[0][..., :height, :width]

    if not ensemble:
        return once(image).clamp(0, 1)
    total = torch.zeros_like(image)
    for turns in range(4):
        for flip in (False, True):
            turned = torch.rot90(image, turns, (-2, -1))
            turned = turned.flip(-1) if flip else turned
            restored = once(turned)
            restored = restored.flip(-1) if flip else restored
            total += torch.rot90(restored, -turns, (-2, -1))
    return (total / 8).clamp(0, 1)
