"""Restores an image with TransWeather."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_mimdit.inference.pixel_restorer import PixelRestorer
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.transweather.network import TransWeatherNetwork

MULTIPLE = 16
LEAST = 48
LONGEST = 1024


def published_size(height: int, width: int) -> tuple[int, int]:
    """Returns the size to which the authors' test resizes an image and its ground truth.

    The longer side is at most 1024; then both sides go up to multiples of 16.
    """
    longest = max(height, width)
    if longest > LONGEST:  # whole numbers, so that the longer side is exactly LONGEST
        height, width = (-(-side * LONGEST // longest) for side in (height, width))
    return -(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE


def lanczos(image: Tensor, height: int, width: int) -> Tensor:
    """Returns the image resized by Pillow's Lanczos filter, in floating point.

    image: (B, C, H, W). Values may leave the range of the input.
    """
    planes = image.detach().cpu().float().flatten(0, 1).numpy()
    resized = np.stack(
        [
            np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS))
            for plane in planes
        ]
    )
    return torch.from_numpy(resized).unflatten(0, image.shape[:2]).to(image)


def restored(network: TransWeatherNetwork, image: Tensor) -> Tensor:
    """Returns the network's answer at the size of the input, in (-1, 1), also for training.

    image: (B, 3, H, W), RGB in [0, 1], any size; it is padded to the sizes that the network takes.
    """
    height, width = image.shape[-2:]
    padded = pad_to_multiple(image, MULTIPLE, LEAST)
    return network(2 * padded - 1)[..., :height, :width]


@torch.no_grad()
def restore(network: TransWeatherNetwork, image: Tensor, resize: bool = False) -> Tensor:
    """Returns the restored image, clamped to [0, 1].

    network: in evaluation mode, as its blocks drop branches while training.
    image: (B, 3, H, W), RGB in [0, 1], any size.
    resize: False pads by reflection to multiples of 16, at least 48, and returns the size of the
        input. Small images are extended by their edges. True resizes the image as the authors' test
        does and returns that size. Their metrics are taken there, against a ground truth that is
        resized too.
    """
    assert not network.training
    if resize:
        image = lanczos(image, *published_size(*image.shape[-2:])).clamp(0, 1)
    return restored(network, image).clamp(0, 1)


class ResizedRestorer(PixelRestorer):
    """Restores at the size of the authors' test, and returns the size of the input.

    Its arguments are those of PixelRestorer.
    """

    def evaluations(self, height: int, width: int) -> int:
        return super().evaluations(*published_size(height, width))

    def __call__(
        self,
        lq: Tensor,
        seeds: Tensor,
        progress: Callable[[int], object] | None = None,
        ids: Sequence[str] | None = None,
    ) -> tuple[Tensor, list[Decisions]]:
        height, width = lq.shape[-2:]
        resized = lanczos(lq, *published_size(height, width)).clamp(0, 1)
        result, decisions = super().__call__(resized, seeds, progress, ids)
        return lanczos(result, height, width).clamp(0, 1), decisions
