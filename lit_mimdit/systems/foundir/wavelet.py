"""The Haar wavelet on cells of 2 x 2 pixels, with its inverse."""

import torch
from torch import Tensor


def analyse(image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns LL, HL, LH and HH, each (B, C, H/2, W/2), of (B, C, H, W).

    With a, b in the left column of a cell (top, bottom) and c, d in the right one:

        LL = (a + b + c + d) / 2,    HL = (-a - b + c + d) / 2
        LH = (-a + b - c + d) / 2,   HH = (a - b - c + d) / 2
    """
    a, b = image[..., 0::2, 0::2] / 2, image[..., 1::2, 0::2] / 2
    c, d = image[..., 0::2, 1::2] / 2, image[..., 1::2, 1::2] / 2
    return a + b + c + d, -a - b + c + d, -a + b - c + d, a - b - c + d


def synthesise(low: Tensor, hl: Tensor, lh: Tensor, hh: Tensor) -> Tensor:
    """Returns the image (B, C, H, W) of which `analyse` makes these four (B, C, H/2, W/2)."""
    a, b = (low - hl - lh + hh) / 2, (low - hl + lh - hh) / 2
    c, d = (low + hl - lh - hh) / 2, (low + hl + lh + hh) / 2
    rows = [torch.stack([left, right], dim=-1).flatten(-2) for left, right in ((a, c), (b, d))]
    return torch.stack(rows, dim=-2).flatten(-3, -2)
