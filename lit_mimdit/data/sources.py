"""The sources of a pair's pixels.

A source is asked by index and answers with both images, cut alike.
"""

from typing import Any, Protocol

import numpy as np

from lit_mimdit.data.faults import Fault
from lit_mimdit.data.image_io import ImageError, read_rgb
from lit_mimdit.data.layouts import Pair
from lit_mimdit.data.mixing import Table


class About(Protocol):
    """The facts about a pair besides its pixels."""

    id: str
    degradation: str
    dataset: str


class Source(Protocol):
    """Pairs by index: a folder of images (below) or shards (shards/source.py)."""

    latents: bool  # holds latents of the VAE, not images

    def __len__(self) -> int: ...

    def about(self, index: int) -> About: ...

    def table(self) -> Table: ...

    def read(
        self, index: int, crop: int | None, draw: np.random.Generator | None
    ) -> tuple[Any, Any]:
        """Returns LQ and GT (H, W, 3), uint8 or uint16.

        With `crop` they are a square of that side: drawn, or the middle one if `draw` is None. They
        are whole if `crop` is None. Raises `ImageError`.

        Raises `ImageError`.
        """

    def take_notes(self) -> list[Fault]:
        """Returns what went wrong without costing a sample, since this was last asked."""


def crop_box(
    height: int, width: int, size: int, draw: np.random.Generator | None
) -> tuple[int, int]:
    """(top, left) of a crop of side `size`: drawn, or the middle if `draw` is None."""
    spare = height - size, width - size
    if draw is None:
        return spare[0] // 2, spare[1] // 2
    return int(draw.integers(0, spare[0] + 1)), int(draw.integers(0, spare[1] + 1))


def place_crop(
    height: int, width: int, size: int, draw: np.random.Generator | None, name: str
) -> tuple[int, int]:
    """Calls `crop_box`; `ImageError` if the image called `name` is smaller than the crop."""
    if min(height, width) < size:
        raise ImageError(f"{name} is {width} x {height} pixels, smaller than the crop of {size}")
    return crop_box(height, width, size, draw)


def require_same_size(lq: np.ndarray, gt: np.ndarray, pair: Pair) -> None:
    """`ImageError` unless both images of a pair have one size."""
    if lq.shape != gt.shape:
        sizes = f"{lq.shape[1]} x {lq.shape[0]} and {gt.shape[1]} x {gt.shape[0]}"
        raise ImageError(
            f"pair {pair.id}: {pair.lq} and {pair.gt} have different sizes, {sizes} pixels"
        )


class FolderSource:
    """Image files, decoded whole.

    Args:
        pairs: what `read_layout` found.
        cache: keep decoded files in memory (small data sets only).
    """

    latents = False

    def __init__(self, pairs: list[Pair], cache: bool = False) -> None:
        self.pairs = pairs
        self.decoded: dict[int, tuple[np.ndarray, np.ndarray]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.pairs)

    def about(self, index: int) -> Pair:
        return self.pairs[index]

    def table(self) -> Table:
        return Table(np.unique([pair.degradation for pair in self.pairs], return_inverse=True)[1])

    def _decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self.decoded is not None and index in self.decoded:
            return self.decoded[index]
        pair = self.pairs[index]
        lq, gt = read_rgb(pair.lq), read_rgb(pair.gt)
        require_same_size(lq, gt, pair)
        if self.decoded is not None:
            self.decoded[index] = lq, gt
        return lq, gt

    def read(
        self, index: int, crop: int | None, draw: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        lq, gt = self._decode(index)
        if crop is None:
            return lq, gt
        pair = self.pairs[index]
        top, left = place_crop(*lq.shape[:2], crop, draw, f"pair {pair.id}: {pair.lq}")
        return lq[top : top + crop, left : left + crop], gt[top : top + crop, left : left + crop]

    def take_notes(self) -> list[Fault]:
        return []
