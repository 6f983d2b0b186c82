"""Colour profiles: what is embedded in a file is converted to sRGB, which the networks know.

A restored image is written in sRGB, too, with an sRGB profile embedded where its input had a
profile. Colours outside sRGB, of Adobe RGB or Display P3, become the nearest colours of sRGB.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import ImageCms

from lit_mimdit.data.image_file import UnsupportedError

_SPACES = {b"RGB ": ("rgb", 3), b"GRAY": ("gray", 1), b"CMYK": ("cmyk", 4)}
_SAME = 257  # levels of 65535: one level of 8 bits


@lru_cache(maxsize=1)
def srgb() -> bytes:
    """Returns an sRGB profile, the same bytes every time."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[24:36] = b"\x07\xd0\0\x01\0\x01\0\0\0\0\0\0"  # made on 2000-01-01, and not now
    made[84:100] = bytes(16)  # no checksum
    return bytes(made)


@lru_cache(maxsize=64)
def profile_name(icc: bytes) -> str:
    """Returns what a profile calls itself, such as "Adobe RGB (1998)"; "damaged profile" if it is
    one.
    """
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return " ".join(ImageCms.getProfileDescription(profile).split()) or "unnamed profile"
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "damaged profile"


@lru_cache(maxsize=64)
def needs_conversion(icc: bytes) -> bool:
    """Returns whether numbers of this profile mean other colours than those of sRGB.

    False for sRGB itself, within one level of 8 bits, and for a profile that cannot be used.
    """
    space, channels = _SPACES.get(icc[16:20], (None, 0))
    if space is None or not usable(icc):
        return False
    if space == "cmyk":
        return True
    axis = np.linspace(0, 65535, 256 if channels == 1 else 9).round().astype(np.uint16)
    grid = np.stack(np.meshgrid(*[axis] * channels, indexing="ij"), axis=-1)
    grid = grid.reshape(1, -1, channels)
    moved = _transform(grid, icc)
    return bool(np.abs(moved.astype(int) - grid).max() > _SAME)


@lru_cache(maxsize=64)
def usable(icc: bytes) -> bool:
    """Returns whether a profile can be converted from: whole, and of gray, RGB or CMYK."""
    space, channels = _SPACES.get(icc[16:20], (None, 0))
    if space is None or profile_name(icc) == "damaged profile":
        return False
    try:
        _transform(np.zeros((1, 1, channels), np.uint16), icc)
    except UnsupportedError:
        raise
    except Exception:  # lcms answers broken tables with its own kinds of errors
        return False
    return True


def fits(icc: bytes, channels: int, cmyk: bool = False) -> bool:
    """Returns whether a profile speaks of pixels with so many channels of colour."""
    space, count = _SPACES.get(icc[16:20], (None, 0))
    return count == channels and (space == "cmyk") == cmyk


def to_srgb(pixels: np.ndarray, icc: bytes, cmyk: bool = False) -> np.ndarray:
    """Returns pixels (H, W, C) uint8 or uint16 of a profile, as sRGB of the same type.

    C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha; with `cmyk` four inks, which become RGB. Alpha
    stays. Pixels come back as they are where the profile is sRGB, cannot be used, or is not of
    their kind. Raises `UnsupportedError` without imagecodecs.
    """
    colours = 4 if cmyk else (1 if pixels.shape[2] <= 2 else 3)
    if not fits(icc, colours, cmyk) or not needs_conversion(icc):
        return pixels
    moved = _transform(np.ascontiguousarray(pixels[..., :colours]), icc)
    return np.concatenate([moved, pixels[..., colours:]], axis=2)


def _transform(pixels: np.ndarray, icc: bytes) -> np.ndarray:
    """Converts by LittleCMS, in the depth of the pixels; gray stays gray, CMYK becomes RGB."""
    try:
        import imagecodecs
    except ImportError as error:
        raise UnsupportedError(
            f"colours of the profile {profile_name(icc)!r} need another package; run: pip install"
            " imagecodecs"
        ) from error
    space, channels = _SPACES[icc[16:20]]
    flat = pixels[..., 0] if channels == 1 else pixels
    # what lcms precalculates for 16 bits and for gray is a coarse table: 12 levels of 255 off
    exact = imagecodecs.CMS.FLAGS.NOOPTIMIZE if pixels.dtype == np.uint16 or channels == 1 else 0
    moved = imagecodecs.cms_transform(
        flat, icc, srgb(), colorspace=space, outcolorspace="rgb", flags=exact
    )
    return moved[..., :1] if channels == 1 else moved
