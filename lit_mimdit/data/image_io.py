"""Reading and writing image files: the one place where bytes become pixels and pixels become bytes.

What is in a file decides how it is read, never its extension (FoundIR holds JPEGs named .png). EXIF
orientation is always applied, deeper files keep 16 bits, and a file that cannot be read raises an
`ImageError` of one line. Numbers are sRGB: colours that a profile or the
file itself states are converted.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_mimdit.data.decoders import ImageError, ImageInfo, decode, decode_photo, image_info
from lit_mimdit.data.deep_pixels import encode_png16
from lit_mimdit.data.image_write import (
    OUTPUT_FORMATS,
    encode_photo,
    fitted,
    losses,
    output_format,
    require_writable,
    write_photo,
)
from lit_mimdit.data.listing import (
    IMAGE_EXTENSIONS,
    Listing,
    find_images,
    list_images,
    natural_key,
)
from lit_mimdit.data.metadata import Metadata

__all__ = [
    "IMAGE_EXTENSIONS",
    "OUTPUT_FORMATS",
    "ImageError",
    "ImageInfo",
    "Listing",
    "Metadata",
    "Photo",
    "encode_photo",
    "encode_png16",
    "find_images",
    "held",
    "image_info",
    "image_size",
    "list_images",
    "losses",
    "natural_key",
    "output_format",
    "read_photo",
    "read_rgb",
    "require_writable",
    "to_tensor",
    "write_photo",
]


class Photo(NamedTuple):
    """A user's photograph, with what is needed to write the restored one in the same form."""

    rgb: Tensor  # (3, H, W) float32 in [0, 1], sRGB
    alpha: Tensor | None  # (1, H, W) float32 in [0, 1]
    gray: bool  # the file stores one luminance channel; rgb repeats it
    bits: int  # 8, or 16 for any more bits a channel in the file
    metadata: Metadata = Metadata()


def read_rgb(path: str | Path, data: bytes | None = None) -> np.ndarray:
    """Returns pixels of an image file, upright and in sRGB: (H, W, 3) uint8, or uint16 where the
    file stores more bits; perhaps read-only.

    Grayscale gives three equal channels, alpha is dropped (colours of transparent pixels stay as
    stored), CMYK is converted. With `data`, the bytes of a file that lies elsewhere (in a shard),
    `path` is only what errors call it. Raises `ImageError`.
    """
    pixels = decode(path, data)
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)
    return np.ascontiguousarray(colours)


def read_photo(path: str | Path) -> Photo:
    """Returns an image file as float tensors, with its alpha channel, grayness, bit depth and
    metadata.

    Raises `ImageError`.
    """
    pixels, metadata = decode_photo(path)
    gray, has_alpha = pixels.shape[2] <= 2, pixels.shape[2] in (2, 4)
    colours = pixels[..., :1].repeat(3, axis=2) if gray else pixels[..., :3]
    alpha = to_tensor(pixels[..., -1:]) if has_alpha else None
    bits = 16 if pixels.dtype == np.uint16 else 8
    return Photo(to_tensor(colours), alpha, gray, bits, metadata)


def held(path: str | Path, photo: Photo) -> Photo:
    """Returns the photograph without what the format of `path` cannot hold; `losses` names that."""
    kind = output_format(path)
    return photo._replace(
        alpha=None if kind == "JPEG" else photo.alpha,
        bits=8 if kind in ("JPEG", "WebP") else photo.bits,
        metadata=fitted(kind, photo.metadata),
    )


def to_tensor(array: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (C, H, W) float32 in [0, 1].

    A new tensor that shares no memory with `array`.
    """
    if array.ndim != 3 or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"expected pixels (H, W, C) of type uint8 or uint16, got {array.dtype} {array.shape};"
            " convert them first"
        )
    planes = np.array(array.transpose(2, 0, 1), dtype=np.float32, order="C")
    return torch.from_numpy(planes).div_(np.iinfo(array.dtype).max)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) after EXIF orientation, without decoding. Raises `ImageError`."""
    info = image_info(path)
    return info.height, info.width
