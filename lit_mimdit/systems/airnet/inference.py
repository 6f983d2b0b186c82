"""Restores an image with AirNet."""

import torch
from torch import Tensor

from lit_mimdit.systems.airnet.network import AirNetNetwork

PUBLISHED_CROP = 16  # the authors' test crops image and ground truth to multiples of it


@torch.no_grad()
def restore(network: AirNetNetwork, image: Tensor) -> Tensor:
    """Returns the restored image at the full size of the input, clamped to [0, 1].

    network: in evaluation mode, as its batch norms have statistics. image: (B, 3, H, W), RGB in
    [0, 1], any size. The authors' test crops images to multiples of 16, which the network does not
    need; `sizes.centre_crop` repeats that for published numbers.
    """
    assert not network.training
    return network(image).clamp(0, 1)
