"""Restores an image with PromptIR."""

from typing import Any

import torch
from torch import Tensor

from lit_mimdit.inference.pixel_restorer import PixelRestorer
from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.promptir.network import PromptIRNetwork
from lit_mimdit.systems.sizes import in_tiles

MULTIPLE = 8
PUBLISHED_CROP = 16  # the authors' test crops image and ground truth to multiples of it
TILE, OVERLAP = 128, 32  # of the authors' demo with --tile


@torch.no_grad()
def restore(
    network: PromptIRNetwork, image: Tensor, tile: int | None = None, overlap: int = OVERLAP
) -> Tensor:
    """Returns the restored image at the full size of the input, clamped to [0, 1].

    image: (B, 3, H, W), RGB in [0, 1]. It is padded by reflection to multiples of 8, as in the
        authors' demo.
    tile: side of tiles, a multiple of 8, or None for the whole image at once; the demo takes TILE.
    overlap: pixels of neighbouring tiles, whose mean is taken without a window.

    Raises ValueError if the tile is no multiple of 8.
    """
    if tile is not None and (tile % MULTIPLE or tile < MULTIPLE):
        raise ValueError(
            f"PromptIR's tiles are multiples of {MULTIPLE} pixels, not {tile}; set tile to one, or"
            " to None for the whole image"
        )
    if tile is not None and not 0 <= overlap < tile:
        raise ValueError(
            f"an overlap of {overlap} does not fit tiles of {tile} pixels; give 0 or more, and less"
            " than the tile"
        )
    height, width = image.shape[-2:]
    padded = pad_to_multiple(image, MULTIPLE)
    restored = network(padded) if tile is None else in_tiles(network, padded, tile, overlap)
    return restored[..., :height, :width].clamp(0, 1)


class MeanTiles(PixelRestorer):
    """Restores in tiles whose plain mean is taken, as the authors' demo does.

    An image counts as one evaluation, whatever its tiles.

    Args:
        network: of PromptIR.
        about: what else a record must say, as plain values.
        tile: side of the tiles in pixels, a multiple of 8.
        overlap: pixels that neighbouring tiles share.
    """

    def __init__(
        self, network: PromptIRNetwork, about: dict[str, Any], tile: int, overlap: int
    ) -> None:
        def merged(image: Tensor) -> Tensor:
            return restore(network, image, tile, overlap)

        super().__init__(network, merged, MULTIPLE, about, tile, overlap)

    def _side(self, height: int, width: int) -> int:
        return max(height, width)  # the whole image: `restore` cuts it
