"""Light and its code: sRGB values to linear light and back, and 8 bits."""

import numpy as np


def srgb_to_linear(image: np.ndarray) -> np.ndarray:
    """Decode sRGB values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Encode linear light as sRGB values in [0, 1] (IEC 61966-2-1); light outside [0, 1] is clipped
    as a sensor clips it.
    """
    light = np.clip(light, 0, 1)
    return (
        np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        .clip(0, 1)
        .astype(np.float32)
    )


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round values in [0, 1] to 8 bits."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
