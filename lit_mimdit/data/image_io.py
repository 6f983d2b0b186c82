"""Reading and writing image files: the one place where bytes become pixels and pixels become bytes.

What is in a file decides how it is read, never its extension (FoundIR holds JPEGs named .png). EXIF
orientation is always applied, 16-bit PNG and TIFF keep their 16 bits, and a file that cannot be
read raises an `ImageError` of one line. Embedded colour profiles are ignored: numbers are passed on
as stored, as in the field's own evaluation.
"""

import io
import os
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor

from lit_mimdit.data.decoders import ImageError, ImageInfo, decode, image_info
from lit_mimdit.files import write_bytes

__all__ = [
    "IMAGE_EXTENSIONS",
    "OUTPUT_FORMATS",
    "ImageError",
    "ImageInfo",
    "Photo",
    "image_info",
    "image_size",
    "list_images",
    "natural_key",
    "output_format",
    "read_photo",
    "read_rgb",
    "to_tensor",
    "write_photo",
]

IMAGE_EXTENSIONS = (
    ".avif",
    ".bmp",
    ".jp2",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
OUTPUT_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
}

_DIGITS = re.compile("([0-9]+)")


class Photo(NamedTuple):
    """A user's photograph, with what is needed to write the restored one in the same form."""

    rgb: Tensor  # (3, H, W) float32 in [0, 1]
    alpha: Tensor | None  # (1, H, W) float32 in [0, 1]
    gray: bool  # the file stores one luminance channel; rgb repeats it
    bits: int  # 8 or 16 bits a channel in the file


def read_rgb(path: str | Path, data: bytes | None = None) -> np.ndarray:
    """Pixels of an image file, upright: (H, W, 3) uint8, or uint16 where the file stores 16 bits;
    perhaps read-only.

    Grayscale gives three equal channels, alpha is dropped (colours of transparent pixels stay as
    stored), CMYK is converted. With `data`, the bytes of a file that lies elsewhere (in a shard),
    `path` is only what errors call it. Raises `ImageError`.
    """
    pixels = decode(path, data)
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)
    return np.ascontiguousarray(colours)


def read_photo(path: str | Path) -> Photo:
    """An image file as float tensors, with its alpha channel, grayness and bit depth.

    Raises `ImageError`.
    """
    pixels = decode(path)
    gray, has_alpha = pixels.shape[2] <= 2, pixels.shape[2] in (2, 4)
    colours = pixels[..., :1].repeat(3, axis=2) if gray else pixels[..., :3]
    alpha = to_tensor(pixels[..., -1:]) if has_alpha else None
    return Photo(to_tensor(colours), alpha, gray, 16 if pixels.dtype == np.uint16 else 8)


def to_tensor(array: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (C, H, W) float32 in [0, 1].

    A new tensor that shares no memory with `array`.
    """
    if array.ndim != 3 or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"expected pixels (H, W, C) of type uint8 or uint16, got {array.dtype} {array.shape}"
        )
    planes = np.array(array.transpose(2, 0, 1), dtype=np.float32, order="C")
    return torch.from_numpy(planes).div_(np.iinfo(array.dtype).max)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) after EXIF orientation, without decoding. Raises `ImageError`."""
    info = image_info(path)
    return info.height, info.width


def natural_key(path: str | Path) -> tuple:
    """Sorting key by which frame2 comes before frame10, whatever the case of letters; folder by
    folder.
    """
    parts = map(_DIGITS.split, str(path).casefold().split(os.sep))
    return [
        [int(token) if i % 2 else token for i, token in enumerate(part)] for part in parts
    ], str(path)


def list_images(folder: str | Path) -> list[Path]:
    """All image files below a folder (any case of extension, hidden ones left out), in natural
    order.

    Linked folders are followed, each once. Raises ValueError if `folder` is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent, name)
            for name in files
            if not name.startswith(".") and name.lower().endswith(IMAGE_EXTENSIONS)
        ]
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder)))


def output_format(path: str | Path) -> str:
    """The format that `write_photo` takes for this name: "PNG", "JPEG", "TIFF" or "WebP".

    Raises ValueError for any other extension: call it before a long computation, not after.
    """
    extension = Path(path).suffix.lower()
    if extension not in OUTPUT_FORMATS:
        raise ValueError(
            f"{path}: cannot write images of type {extension!r}; choose one of"
            f" {', '.join(OUTPUT_FORMATS)}"
        )
    return OUTPUT_FORMATS[extension]


def write_photo(
    path: str | Path, rgb: Tensor, alpha: Tensor | None = None, gray: bool = False, bits: int = 8
) -> None:
    """Write an image; the extension decides the format. The file appears whole or not at all.

    JPEG is written at quality 95 without chroma subsampling; PNG, TIFF and WebP are lossless. JPEG
    has no alpha, and JPEG and WebP have 8 bits only: what a format cannot hold is left out with a
    warning, as the computation before it is done.

    Args:
        path: file to write, in a folder that exists; an existing file is replaced
        rgb: (3, H, W), clipped to [0, 1]
        alpha: (1, H, W), clipped to [0, 1]
        gray: store one channel, the mean of the three
        bits: 8 or 16 bits a channel

    Raises:
        ValueError: unknown extension, wrong shape, or values that are not finite
        ImageError: the file cannot be written (no such folder, full disk, image too large for the
        format)
    """
    kind = output_format(path)
    if (
        rgb.ndim != 3
        or rgb.shape[0] != 3
        or (alpha is not None and alpha.shape != (1, *rgb.shape[1:]))
    ):
        shapes = f"rgb {tuple(rgb.shape)}" + (
            "" if alpha is None else f", alpha {tuple(alpha.shape)}"
        )
        raise ValueError(
            f"{path}: expected rgb (3, H, W) and alpha (1, H, W) of the same size, got {shapes}"
        )
    if bits not in (8, 16):
        raise ValueError(f"{path}: bits must be 8 or 16, got {bits}")
    if kind == "JPEG" and alpha is not None:
        warnings.warn(
            f"{path}: JPEG holds no alpha channel, it is left out; write .png, .tif or .webp to"
            " keep it",
            stacklevel=2,
        )
        alpha = None
    if kind in ("JPEG", "WebP") and bits == 16:
        warnings.warn(
            f"{path}: {kind} holds 8 bits, written with 8 of 16; write .png or .tif to keep them",
            stacklevel=2,
        )
        bits = 8
    colours = rgb.detach().float().mean(0, keepdim=True) if gray else rgb.detach().float()
    planes = (
        colours
        if alpha is None
        else torch.cat([colours, alpha.detach().float().to(colours.device)])
    )
    if not planes.isfinite().all():
        raise ValueError(f"{path}: the image has values that are not finite (NaN or infinity)")
    levels = planes.clamp(0, 1).mul(2**bits - 1).round().permute(1, 2, 0).cpu().numpy()
    pixels = levels.astype(np.uint8 if bits == 8 else np.uint16)
    try:
        data = _encode(kind, pixels)
    except (OSError, ValueError, struct.error) as error:
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ImageError(
            f"{path}: {size} pixels cannot be encoded as {kind} ({error}); write .png or .tif"
        ) from error
    write_bytes(path, data)


def _encode(kind: str, pixels: np.ndarray) -> bytes:
    """(H, W, C) uint8 or uint16, C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha, as the bytes of
    a file.
    """
    if kind == "PNG" and pixels.dtype == np.uint16:
        return encode_png16(pixels)
    buffer = io.BytesIO()
    channels = pixels.shape[2]
    if kind == "TIFF":
        photometric, extra = (
            ("rgb" if channels >= 3 else "minisblack"),
            (["unassalpha"] if channels in (2, 4) else None),
        )
        squeezed = pixels[..., 0] if channels == 1 else pixels
        tifffile.imwrite(
            buffer,
            squeezed,
            photometric=photometric,
            planarconfig="contig",
            extrasamples=extra,
            compression="zlib",
        )
        return buffer.getvalue()
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    options = {
        "PNG": {},
        "JPEG": {"quality": 95, "subsampling": 0},
        "WebP": {"lossless": True, "exact": True},
    }[kind]
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which neither PIL nor torchvision writes
    (https://www.w3.org/TR/png/).
    """
    height, width, channels = pixels.shape
    rows = np.ascontiguousarray(pixels, dtype=">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 2  # filter "up": each byte less the one above it, modulo 256
    filtered[:, 1:] = rows
    filtered[1:, 1:] -= rows[:-1]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(filtered.tobytes(), 6)),
        (b"IEND", b""),
    ]
    encoded = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(encoded)
