"""FoundIR's inference: tiles for the generalist, windows for the specialists, and their order.

Images are (B, 3, H, W) in [0, 1], RGB.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_mimdit.models.padding import pad_to_multiple

TILE, OVERLAP = 1024, 512  # pixels
WEATHER_WINDOW = 512
LOW_LIGHT_MULTIPLE = 128
WEATHER = ((501, 700), (1051, 1100))  # first and last number in the published test set
LOW_LIGHT = ((701, 800), (1101, 1250), (1301, 1500))


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Returns where tiles begin along a side; the last one ends at the border.

    Raises:
        ValueError: if tiles would not advance.
    """
    if not 0 <= overlap < tile:
        raise ValueError(
            f"overlap is {overlap} and tile {tile} pixels: tiles must advance, so give an overlap"
            " from 0 to below the tile"
        )
    last = max(0, length - tile)
    return [*range(0, last, tile - overlap), last]


def corners(height: int, width: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Returns the tiles' top left corners (row, column), row by row."""
    columns = starts(width, tile, overlap)
    return [(top, left) for top in starts(height, tile, overlap) for left in columns]


def restore(
    network: Callable[[Tensor, Tensor], Tensor],
    degraded: Tensor,
    draw: Callable[[Tensor], Tensor] = torch.randn_like,
    tile: int = TILE,
    overlap: int = OVERLAP,
) -> Tensor:
    """Returns what the generalist makes of images, in [0, 1].

    An image of more than tile^2 pixels is cut into overlapping tiles, no larger than the image.
    Each starts from noise of its own; where tiles overlap the result is their mean.

    Args:
        network: the generalist, from an image and noise to the restored image.
        degraded: images of any size.
        draw: returns standard normal noise like a tensor; called once a tile, row by row.
        tile, overlap: in pixels, as published 1024 and 512.
    """
    height, width = degraded.shape[-2:]
    if height * width <= tile**2:
        return network(degraded, draw(degraded))
    total, count = torch.zeros_like(degraded), torch.zeros_like(degraded)
    for top, left in corners(height, width, tile, overlap):
        part = (..., slice(top, top + tile), slice(left, left + tile))
        total[part] += network(degraded[part], draw(degraded[part]))
        count[part] += 1
    return total / count


def restore_weather(network: nn.Module, image: Tensor, window: int = WEATHER_WINDOW) -> Tensor:
    """Returns what the specialist for weather makes of the generalist's images, in [0, 1].

    The image is padded by reflection to multiples of `window`; windows do not overlap.
    """
    height, width = image.shape[-2:]
    padded = pad_to_multiple(image, window)
    result = torch.empty_like(padded)
    for top in range(0, padded.shape[-2], window):
        for left in range(0, padded.shape[-1], window):
            part = (..., slice(top, top + window), slice(left, left + window))
            result[part] = network(padded[part])
    return result[..., :height, :width].clamp(0, 1)


def restore_low_light(
    network: nn.Module, image: Tensor, multiple: int = LOW_LIGHT_MULTIPLE
) -> Tensor:
    """Returns what the specialist for low light makes of the generalist's images, in [0, 1].

    The whole image is padded by reflection to multiples of `multiple`.
    """
    height, width = image.shape[-2:]
    return network(pad_to_multiple(image, multiple))[..., :height, :width].clamp(0, 1)


def in_8_bits(image: Tensor) -> Tensor:
    """Returns the image with values k / 255, as a file between two networks holds it."""
    return (image.clamp(0, 1) * 255).round() / 255


def published_specialist(number: int) -> str | None:
    """Returns "weather", "low light" or None for an image of the published test set.

    The published scores choose the specialist by the image's number, which is not blind.

    Args:
        number: of the image, from 1 to 1500.

    Raises:
        ValueError: if the test set has no such image.
    """
    if not 1 <= number <= 1500:
        raise ValueError(f"number is {number}: the test set has images 1 to 1500")
    for name, ranges in (("weather", WEATHER), ("low light", LOW_LIGHT)):
        if any(first <= number <= last for first, last in ranges):
            return name
    return None
