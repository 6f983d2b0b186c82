"""From the bytes of an image file to its pixels: PIL, and tifffile for the 16-bit TIFF files that
PIL cannot keep.

The content decides the format, EXIF orientation is applied, and whatever is wrong with a file comes
out as an `ImageError`.
"""

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from lit_mimdit.files import FileError

# A fixed list, since some of PIL's other readers start programs (EPS starts Ghostscript).
_READABLE = ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "BMP", "GIF", "JPEG2000", "PPM")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 274


class ImageError(FileError):
    """An image file that cannot be read or written, in one line with its path and a remedy."""


class ImageInfo(NamedTuple):
    """What a file's header says. `height` and `width` are those after EXIF orientation."""

    height: int
    width: int
    format: str  # PIL's name of what the file really is: "PNG", "JPEG", ...
    orientation: int  # EXIF orientation, 1 (upright) to 8


def decode(path: str | Path, data: bytes | None = None) -> np.ndarray:
    """Upright pixels with the channels of the file: (H, W, C), C = 1 gray, 2 gray + alpha, 3 RGB, 4
    RGB + alpha; perhaps read-only.

    With `data`, the bytes of a file that lies elsewhere (in a shard), `path` is only what errors
    call it.
    """
    with _open(path, data) as file:
        head = file.read(25)
        file.seek(0)
        if head[:4] in _TIFF_MAGIC:
            pixels = _decode_tiff16(file)
            if pixels is not None:
                return pixels
            file.seek(0)
        with Image.open(file, formats=_READABLE) as image:
            if head[:8] == _PNG_MAGIC and head[24] == 16:
                orientation = _orientation(image, file)
                pixels = _png16_pixels(file)
            else:
                image.load()
                orientation = _orientation(
                    image, file
                )  # after load: PIL turns TIFF by itself there, and drops the tag
                pixels = _pil_pixels(image)
    return _upright(pixels, orientation)


def image_info(path: str | Path, data: bytes | None = None) -> ImageInfo:
    """Size, real format and orientation from the header alone, without decoding.

    `data` as in `decode`. Raises `ImageError`.
    """
    with _open(path, data) as file:
        head = file.read(4)
        file.seek(0)
        if head in _TIFF_MAGIC:
            with tifffile.TiffFile(file) as tiff:
                page = tiff.pages.first
                height, width, name, orientation = (
                    page.imagelength,
                    page.imagewidth,
                    "TIFF",
                    _tiff_orientation(page),
                )
        else:
            with Image.open(file, formats=_READABLE) as image:
                (width, height), name, orientation = (
                    image.size,
                    image.format,
                    _orientation(image, file),
                )
    if orientation >= 5:
        height, width = width, height
    return ImageInfo(height, width, "JPEG" if name == "MPO" else name, orientation)


@contextmanager
def _open(path: str | Path, data: bytes | None) -> Iterator[BinaryIO]:
    """The file opened for reading; whatever goes wrong with it inside the block becomes an
    `ImageError`.
    """
    try:
        with open(path, "rb") if data is None else io.BytesIO(data) as file:
            if (os.fstat(file.fileno()).st_size if data is None else len(data)) == 0:
                raise ImageError(
                    f"{path}: the file is empty (zero bytes); copy or download it again"
                )
            yield file
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: not an image in a known format ({', '.join(_READABLE)}), or its header is"
            " corrupt"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path}: refused as a possible decompression bomb: {_one_line(error)}; cut it into"
            " parts"
        ) from error
    except NotImplementedError as error:
        raise ImageError(f"{path}: {_one_line(error)}") from error
    except Exception as error:  # decoders answer broken bytes with errors of every type
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
        message = _one_line(error)
        if "imagecodecs" in message:
            raise ImageError(
                f"{path}: TIFF compression without a decoder here; run: pip install imagecodecs"
            ) from error
        kind = (
            "truncated"
            if re.search("truncat|failed to read", message, re.IGNORECASE)
            else "truncated or corrupt"
        )
        raise ImageError(
            f"{path}: the image is {kind} ({message}); copy or download it again"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _pil_pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return np.array(image).astype(np.uint16)[..., None]
    if image.mode == "I" and image.format == "PPM":  # 16-bit PGM
        return np.array(image).clip(0, 65535).astype(np.uint16)[..., None]
    if image.mode in ("I", "F", "LAB"):
        raise NotImplementedError(
            f"pixels of type {image.mode} are not supported; convert it to 8- or 16-bit RGB"
        )
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    pixels = np.asarray(
        image if image.mode == mode else image.convert(mode)
    )  # converting to the same mode copies, and so does np.array
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _png16_pixels(file: BinaryIO) -> np.ndarray:
    """PIL reduces 16-bit colour to its high bytes. Its raw modes for the other byte order give the
    low ones, so it decodes twice.

    (torchvision reads 16 bits too, but its image decoders are deprecated since 0.29 and will be
    removed.)
    """
    parts = []
    for order in "BL":
        file.seek(0)
        with Image.open(file, formats=("PNG",)) as image:
            codec, box, offset, raw_mode = image.tile[0]
            if raw_mode == "I;16B":  # gray: PIL keeps all bits
                return _pil_pixels(image)
            if (
                raw_mode == "LA;16B"
            ):  # read as four bytes a pixel: high and low of gray, high and low of alpha
                image.tile = [(codec, box, offset, "RGBA")]
                return np.asarray(image).view(">u2").astype(np.uint16)
            assert raw_mode in ("RGB;16B", "RGBA;16B"), raw_mode
            image.tile = [(codec, box, offset, raw_mode[:-1] + order)]
            parts.append(np.asarray(image).astype(np.uint16))
    return parts[0] << 8 | parts[1]


def _decode_tiff16(file: BinaryIO) -> np.ndarray | None:
    """A 16-bit gray or RGB TIFF, upright, which PIL would reduce to 8 bits; None for every other
    kind of TIFF.
    """
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        kinds = (
            tifffile.PHOTOMETRIC.MINISBLACK,
            tifffile.PHOTOMETRIC.MINISWHITE,
            tifffile.PHOTOMETRIC.RGB,
        )
        if page.dtype != np.uint16 or page.photometric not in kinds or page.imagedepth != 1:
            return None
        if (
            Image.MAX_IMAGE_PIXELS
            and page.imagelength * page.imagewidth > 2 * Image.MAX_IMAGE_PIXELS
        ):
            raise Image.DecompressionBombError(f"{page.imagewidth} x {page.imagelength} pixels")
        if any(
            offset + count > tiff.filehandle.size or count == 0
            for offset, count in zip(page.dataoffsets, page.databytecounts)
        ):
            raise ValueError(
                "truncated file: pixel data are missing"
            )  # tifffile would fill them with zeros
        pixels, extra, orientation = page.asarray(), page.extrasamples, _tiff_orientation(page)
        pixels = (
            pixels[..., None] if pixels.ndim == 2 else np.moveaxis(pixels, page.axes.index("S"), 2)
        )
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels[..., 0] = 65535 - pixels[..., 0]
    colours = 3 if page.photometric == tifffile.PHOTOMETRIC.RGB else 1
    has_alpha = len(extra) > 0 and extra[0] != tifffile.EXTRASAMPLE.UNSPECIFIED
    pixels = pixels[..., : colours + has_alpha]
    if (
        has_alpha and extra[0] == tifffile.EXTRASAMPLE.ASSOCALPHA
    ):  # colours are stored multiplied by alpha
        alpha = pixels[..., -1:].astype(np.float64).clip(1)
        pixels[..., :-1] = (
            (pixels[..., :-1] * (65535 / alpha)).round().clip(0, 65535).astype(np.uint16)
        )
    return _upright(pixels, orientation)


def _tiff_orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(_ORIENTATION_TAG)
    return tag.value if tag is not None and tag.value in _TURNS else 1


def _orientation(image: Image.Image, file: BinaryIO) -> int:
    """EXIF orientation of an opened image, 1 if it has none or its EXIF block is broken (the pixels
    are good still).
    """
    with suppress(Exception):
        # PngImageFile.getexif would decode the whole image, in case the block comes after the
        # pixels
        if image.format == "PNG" and not _exif_after_pixels(file):
            exif = Image.Image.getexif(
                image
            )  # PNG's own method would decode the image, to look after the pixels too
        else:
            exif = image.getexif()
        value = exif.get(_ORIENTATION_TAG, 1)
        return value if value in _TURNS else 1
    return 1


def _exif_after_pixels(file: BinaryIO) -> bool:
    position, seen_pixels = file.tell(), False
    try:
        file.seek(len(_PNG_MAGIC))
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"eXIf":
                return seen_pixels
            seen_pixels |= name == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)
        return False
    finally:
        file.seek(position)


# What turns pixels stored with an EXIF orientation upright
_TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return np.ascontiguousarray(_TURNS[orientation](pixels))
