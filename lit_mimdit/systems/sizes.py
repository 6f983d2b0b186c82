"""Sizes of images that a network accepts: what fits, cropping to multiples, and tiles."""

from collections.abc import Callable

import torch
from torch import Tensor


def demand_multiple(x: Tensor, multiple: int, system: str, least: int = 1) -> None:
    """Raises ValueError unless both sides of (B, 3, H, W) are multiples and at least `least`."""
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(
            f"{system} takes RGB images of shape (batch, 3, height, width), not {tuple(x.shape)}"
        )
    height, width = x.shape[-2:]
    if height % multiple or width % multiple or min(height, width) < least:
        also = f" and at least {least}" if least > multiple else ""
        raise ValueError(
            f"{system} takes heights and widths that are multiples of {multiple}{also}, not"
            f" {height} x {width}; pad the image first"
        )


def centre_crop(x: Tensor, multiple: int) -> Tensor:
    """Returns the centre of x whose height and width are the largest multiples.

    x: (..., H, W). An odd rest leaves the larger part at the end. ValueError if nothing remains.
    """
    height, width = x.shape[-2:]
    new_height, new_width = height - height % multiple, width - width % multiple
    if not new_height or not new_width:
        raise ValueError(
            f"an image of {height} x {width} has no multiple of {multiple} inside;"
            " give a larger one"
        )
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return x[..., top : top + new_height, left : left + new_width]


def in_tiles(restore: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int) -> Tensor:
    """Returns the mean of overlapping tiles, each restored by itself; no window is applied.

    restore: maps (B, C, t, t) to the same shape.
    x: (B, C, H, W); a side shorter than `tile` makes all tiles smaller.
    tile, overlap: in pixels; the last tile of a row ends at the border.
    """
    assert 0 <= overlap < tile
    height, width = x.shape[-2:]
    tile = min(tile, height, width)
    step = max(1, tile - overlap)
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    for top in [*range(0, height - tile, step), height - tile]:
        for left in [*range(0, width - tile, step), width - tile]:
            window = (..., slice(top, top + tile), slice(left, left + tile))
            total[window] += restore(x[window])
            count[window] += 1
    return total / count
