"""A small copy of the whole image tells its tiles how bright, and of what colour, the scene is.

A tile of a large photograph may show nothing but a dark wall. Whether the wall or the light is dark
cannot be seen from there, and neighbouring tiles decide differently. So a small copy is restored in
one piece, and its coarse part takes the place of the tiles':

    x = x_tiles - up(down(x_tiles)) + up(down(x_small))

down averages over the areas of a grid `COARSE` times coarser than the small copy, up is bicubic.
How bright a dark scene was can only be guessed, and one sample of the model is one guess. With
`sampling.overview_samples` x_small is the mean of several, which comes near the posterior mean.
Then images that need no tiles take their light from it, too.
"""

import torch.nn.functional as F
from torch import Tensor

COARSE = 8


def small_size(height: int, width: int, longest: int, multiple: int) -> tuple[int, int]:
    """(height, width) of the small copy.

    Its longer side is `longest`; both sides are rounded to multiples of `multiple`.
    """
    scale = longest / max(height, width)
    tall, wide = (
        max(multiple, round(side * scale / multiple) * multiple) for side in (height, width)
    )
    return tall, wide


def shrink(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the small copy (B, 3, h, w) of images (B, 3, H, W): means over areas."""
    return F.interpolate(image, size=size, mode="area")


def enlarge(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns images (B, 3, h, w) in [0, 1] at `size`, bicubic; those of that size as they are."""
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bicubic", align_corners=False).clamp_(0, 1)


def coarse(image: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """up(down(image)): means on `grid`, drawn at `size`."""
    return F.interpolate(
        F.interpolate(image, size=grid, mode="area"), size=size, mode="bicubic", align_corners=False
    )


def anchor(tiled: Tensor, small: Tensor) -> Tensor:
    """Returns the tiles' result (B, 3, H, W) with the coarse part of the small copy's result (B, 3,
    h, w); in [0, 1].
    """
    height, width = tiled.shape[-2:]
    rows, columns = (max(1, side // COARSE) for side in small.shape[-2:])
    grid, size = (rows, columns), (height, width)
    # in place: a large image has no room for its copies
    return coarse(tiled, grid, size).neg_().add_(tiled).add_(coarse(small, grid, size)).clamp_(0, 1)
