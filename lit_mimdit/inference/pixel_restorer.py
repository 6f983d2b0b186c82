"""Image-to-image networks on images of any size: padded, and in tiles where they are large."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mimdit.inference import tiling
from lit_mimdit.inference.run_record import config_hash
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.padding import pad_to_multiple

TILE, OVERLAP = 512, 64  # pixels


def tiled(
    planes: Tensor,
    multiple: int,
    function: Callable[[Tensor], Tensor],
    progress: Callable[[int], object] | None = None,
    tile: int = TILE,
    overlap: int = OVERLAP,
) -> Tensor:
    """Returns what `function` makes of planes (B, C, H, W), tile by tile where they are large.

    H and W are multiples of `multiple`. Overlapping borders are blended. `progress` is called with
    the number of tiles after each.
    """
    height, width = planes.shape[-2:]
    boxes = tiling.boxes(height, width, tile, overlap, multiple)

    def on_tile(part: Tensor, _: int) -> Tensor:
        result = function(part)
        if progress is not None:
            progress(len(part))
        return result

    if len(boxes) == 1:
        return on_tile(planes, 0)
    images = (tiling.blend(one[None], boxes, boxes, overlap, 1, on_tile) for one in planes)
    return tiling.joined(list(images))


class PixelRestorer:
    """Restores images of any size with an image-to-image network.

    Args:
        network: whose parameters tell the device; it is put into evaluation mode while it works.
        restore: degraded images (B, 3, h, w) in [0, 1] -> restored ones, not clamped.
        multiple: what h and w must be divisible by.
        about: what else a record must say, as plain values.
        tile: side of the tiles of larger images, in pixels; 0 never cuts.
        overlap: pixels that neighbouring tiles share.
    """

    def __init__(
        self,
        network: nn.Module,
        restore: Callable[[Tensor], Tensor],
        multiple: int = 1,
        about: dict[str, Any] | None = None,
        tile: int = TILE,
        overlap: int = OVERLAP,
    ) -> None:
        if tile and (tile % multiple or not 0 <= overlap < tile):
            raise ValueError(
                f"tile is {tile} px with an overlap of {overlap} px: this network takes tiles of"
                f" multiples of {multiple} px, and an overlap below the tile"
            )
        self.network = network
        self.restore = restore
        self.multiple = multiple
        self.about = about or {}
        self.tile = tile
        self.overlap = overlap

    @property
    def device(self) -> torch.device:
        parameter = next(self.network.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        tall, wide = (-(-side // self.multiple) * self.multiple for side in (height, width))
        return tall, wide

    def _side(self, height: int, width: int) -> int:
        """Side of the tiles for a padded image."""
        return self.tile or max(height, width)

    def evaluations(self, height: int, width: int) -> int:
        """Returns how many tiles an image of this size has: what `progress` will count."""
        padded = self._padded(height, width)
        side = self._side(*padded)
        return len(tiling.boxes(*padded, side, min(self.overlap, side - 1), self.multiple))

    @torch.no_grad()
    def __call__(
        self,
        lq: Tensor,
        seeds: Tensor,
        progress: Callable[[int], object] | None = None,
        ids: Sequence[str] | None = None,
    ) -> tuple[Tensor, list[Decisions]]:
        """Restore images of one size.

        Args:
            lq: (B, 3, H, W) in [0, 1], any H and W.
            seeds: (B,); a network without noise has no use for them.
            progress: called with the number of tiles after each.
            ids: of the images; not used.

        Returns:
            restored images (B, 3, H, W) in [0, 1] on the CPU, and empty routing for each.
        """
        training = self.network.training
        self.network.eval()
        try:
            padded = pad_to_multiple(lq, self.multiple)
            side = self._side(*padded.shape[-2:])
            # one image at a time: a batch of 4 is then 4 batches of 1, to the bit
            results = [
                tiled(
                    image[None].to(self.device),
                    self.multiple,
                    self.restore,
                    progress,
                    side,
                    min(self.overlap, side - 1),
                )
                for image in padded
            ]
        finally:
            self.network.train(training)
        restored = tiling.joined(results)[..., : lq.shape[-2], : lq.shape[-1]]
        return restored.float().clamp(0, 1).cpu(), [()] * len(lq)

    def record(self) -> dict[str, Any]:
        """Returns everything that decides what a restored image looks like."""
        tiles = {"tile": self.tile, "overlap": self.overlap}
        return {
            "config_hash": config_hash([self.about, tiles]),
            "system": self.about,
            "backbone": None,
            "sampling": tiles,
            "prompt": {},
            "fidelity": None,
            "colour_fix": "none",
        }
