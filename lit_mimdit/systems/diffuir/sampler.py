"""DiffUIR's inference: its steps, and how its test script prepares photographs in low light."""

import numpy as np
from numpy.typing import NDArray

STEPS = 3
REAL_STEPS = 4  # for real photographs


def equalize(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the image with the histogram of every channel equalised, (H, W, C), 0 to 255.

    The histogram N(x) counts pixels up to x, m is the channel's darkest value, and P counts all
    pixels.

        y = round(255 (N(x) - N(m)) / (P - N(m)))

    Halves round to even. One value only stays as it is.

    The published scores in low light need this step, for training and test. It is chosen by
    knowing the degradation, so it is not part of a blind comparison.

    Raises:
        ValueError: if the image is not of 8 bits or has no channels.
    """
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(
            f"the image has type {image.dtype} and {image.ndim} axes: histograms are equalised by"
            " channel in 8 bits, so give (H, W, C) of type uint8"
        )
    channels = [_equalized(image[..., index]) for index in range(image.shape[-1])]
    return np.stack(channels, axis=-1)


def _equalized(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    counts = np.bincount(plane.ravel(), minlength=256)
    darkest = counts[plane.min()]
    if darkest == plane.size:
        return plane.copy()
    scale = np.float32(255) / np.float32(plane.size - darkest)
    steps = (np.cumsum(counts) - darkest).clip(min=0).astype(np.float32)
    return np.rint(steps * scale).clip(0, 255).astype(np.uint8)[plane]
