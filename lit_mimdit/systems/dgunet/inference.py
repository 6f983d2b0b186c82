"""How DGUNet and DGUNet+ restore an image."""

import torch
from torch import Tensor

from lit_mimdit.systems.dgunet.network import DGUNet
from lit_mimdit.systems.sizes import pad_to_multiple


@torch.no_grad()
def restore(network: DGUNet, image: Tensor, ensemble: bool = False) -> Tensor:
    """Returns the last stage's picture at the full size of the input, clamped to [0, 1].

    image: (B, 3, H, W), RGB in [0, 1]. It is padded by reflection to multiples of 8, as the authors
    do for RealBlur. ensemble: the mean over the 8 flips and rotations, as they do for SIDD and DND.
    ValueError if the image is too small.
    """

    def once(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return network(pad_to_multiple(x, 8))[0][..., :height, :width]

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
