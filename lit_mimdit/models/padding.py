"""Images extended by reflection, at the bottom and the right, to the sides that networks take."""

import torch
from torch import Tensor


def reflected(length: int, target: int, device: torch.device | None = None) -> Tensor:
    """Returns the positions (target,) that continue 0 .. length - 1 by reflection at both ends.

    The ends are not repeated: 0 1 2 1 0 1 for 3 positions and a target of 6. Reflection goes on as
    often as it must, so a side of any length can be padded to any other.
    """
    period = max(1, 2 * (length - 1))
    position = torch.arange(target, device=device) % period
    return torch.where(position < length, position, period - position)


def pad_to_multiple(image: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Returns (..., H, W) with both sides raised to multiples of `multiple`.

    No side is shorter than `least` pixels, a multiple, afterwards. Cut the result to [..., :H, :W]
    after the network.
    """
    height, width = image.shape[-2:]
    below, right = (max(-side % multiple, least - side) for side in (height, width))
    if below:
        image = image.index_select(-2, reflected(height, height + below, image.device))
    if right:
        image = image.index_select(-1, reflected(width, width + right, image.device))
    return image
