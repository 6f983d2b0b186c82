"""Reads what a pipeline accepts as a photograph, and writes the forms in which it returns one.

The forms are those of diffusers' own pipelines: PIL images, arrays and tensors, single, in a list
or as a batch. Every value is known to mean what it is taken for, or refused.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

Picture = Image.Image | np.ndarray | Tensor
FULL = {torch.uint8: 255.0, torch.uint16: 65535.0}  # the value that is 1
OVERSHOOT = 0.1  # beyond [0, 1]: what a bicubic resize adds at an edge
REMEDY = "give values in [0, 1], or uint8 or uint16"


def photos(image: Picture | Sequence[Picture]) -> list[Tensor]:
    """Returns every photograph of a call as (3, H, W) float32 in [0, 1].

    Args:
        image: one photograph, a sequence of them, or a batch: an array (B, H, W, 3) or a tensor
            (B, 3, H, W).

    Raises:
        ValueError: for no photograph, another shape, another type, or values of unknown meaning.
    """
    if isinstance(image, (np.ndarray, Tensor)):
        single = image.ndim < 4
    else:
        single = isinstance(image, str) or not isinstance(image, Iterable)
    each: Any = [image] if single else image
    photographs = [photo(picture) for picture in each]
    if not photographs:
        raise ValueError("image is empty: give at least one photograph")
    return photographs


def photo(picture: Picture) -> Tensor:
    """Returns one photograph as (3, H, W) float32 in [0, 1]; transparency is dropped.

    Raises:
        ValueError: for another shape, another type, or values of unknown meaning.
    """
    if isinstance(picture, Image.Image):
        planes = _pixels(picture)
    elif isinstance(picture, np.ndarray):
        planes = _array(picture)
    elif isinstance(picture, Tensor):
        planes = picture.detach().cpu()
    else:
        raise ValueError(
            f"image is a {type(picture).__name__}: give a PIL image, an array (H, W, 3) or a tensor"
            " (3, H, W)"
        )
    if planes.ndim != 3 or planes.shape[0] != 3 or not planes.numel():
        shape = getattr(picture, "shape", None)
        raise ValueError(
            f"image has shape {tuple(shape if shape is not None else planes.shape)}: give RGB, a"
            " tensor (3, H, W) or an array (H, W, 3)"
        )
    return _unit_range(planes)


def _pixels(image: Image.Image) -> Tensor:
    """The values of a PIL image; those of 16 bits and of floats keep their precision."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return _array(np.repeat(np.asarray(image).astype(np.uint16)[..., None], 3, axis=2))
    if image.mode == "F":
        return _array(np.repeat(np.asarray(image)[..., None], 3, axis=2))
    if image.mode == "I":
        raise ValueError(
            f"image has mode I, integers of 32 bits, whose white is not known: {REMEDY}"
        )
    return _array(np.asarray(image.convert("RGB")))


def _array(pixels: np.ndarray) -> Tensor:
    """(H, W, C) -> (C, H, W) of the same type, in memory of its own."""
    if pixels.dtype.kind not in "uf" or pixels.dtype.itemsize > 8:
        raise ValueError(f"image holds {pixels.dtype}: {REMEDY}")
    native = pixels.astype(pixels.dtype.newbyteorder("="))
    if native.ndim != 3:
        return torch.from_numpy(native)
    return torch.from_numpy(np.ascontiguousarray(native.transpose(2, 0, 1)))


def _unit_range(planes: Tensor) -> Tensor:
    """Values as float32 in [0, 1] by what their type says. ValueError if it does not say."""
    if planes.dtype in FULL:
        return planes.float() / FULL[planes.dtype]
    if not planes.is_floating_point():
        raise ValueError(f"image holds {str(planes.dtype).removeprefix('torch.')}: {REMEDY}")
    planes = planes.float()
    low, high = planes.min().item(), planes.max().item()
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):  # NaN fails, too
        raise ValueError(f"image holds values from {low:.4g} to {high:.4g}: {REMEDY}")
    return planes.clamp(0.0, 1.0)


def resize(image: Tensor, height: int | None, width: int | None) -> Tensor:
    """Returns (3, H, W) in `height` x `width` pixels, bicubic; a side that is None stays.

    Raises:
        ValueError: for a side below 1.
    """
    sides = (image.shape[-2] if height is None else height, width or image.shape[-1])
    if sides[0] < 1 or (width is not None and width < 1):
        raise ValueError(f"height is {height} and width {width}: both must be at least 1")
    if sides == tuple(image.shape[-2:]):
        return image
    return F.interpolate(
        image[None], sides, mode="bicubic", align_corners=False, antialias=True
    ).clamp(0.0, 1.0)[0]


def pictures(
    images: list[Tensor], kind: str
) -> list[Image.Image] | np.ndarray | Tensor | list[np.ndarray] | list[Tensor]:
    """Returns restored images (3, H, W) in [0, 1] as a call asked for them.

    Args:
        images: float32, of any sizes.
        kind: "pil" gives a list, "np" an array (B, H, W, 3), and "pt" a tensor (B, 3, H, W). Where
            the sizes differ, the last two give lists.
    """
    if kind == "pil":
        return [
            Image.fromarray((image.permute(1, 2, 0).numpy() * 255.0).round().astype(np.uint8))
            for image in images
        ]
    alike = len({image.shape for image in images}) == 1
    if kind == "pt":
        return torch.stack(images) if alike else images
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    return np.stack(arrays) if alike else arrays
