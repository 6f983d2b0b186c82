"""Decodes the bytes of an image file: by PIL, and otherwise where PIL would lose something.

The content decides the format. EXIF orientation is applied, and embedded colour profiles are
converted to sRGB. Whatever is wrong with a file comes out as an `ImageError`.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from lit_mimdit.data import colour_profile
from lit_mimdit.data.deep_pixels import deep_pixels
from lit_mimdit.data.image_file import (
    PNG_MAGIC,
    TIFF_MAGIC,
    ImageError,
    UnsupportedError,
    open_image,
    opened,
)
from lit_mimdit.data.metadata import ORIENTATION, Metadata, read_metadata
from lit_mimdit.data.stated_colour import StatedColour, adobe_by_exif, stated_colour
from lit_mimdit.data.tiff import TiffPixels, read_tiff, tiff_header

__all__ = ["ImageError", "ImageInfo", "decode", "decode_photo", "image_info"]


class ImageInfo(NamedTuple):
    """The facts in a file's header. `height` and `width` are those after EXIF orientation."""

    height: int
    width: int
    format: str  # PIL's name of what the file really is: "PNG", "JPEG", ...
    orientation: int  # EXIF orientation, 1 (upright) to 8
    frames: int = 1  # pictures of an animation or pages of a TIFF
    profile: str = ""  # name of a colour profile that is not sRGB, or what else states colours


def decode(path: str | Path, data: bytes | None = None) -> np.ndarray:
    """Returns upright pixels in sRGB with the channels of the file, perhaps read-only.

    They are (H, W, C), uint8 or uint16. C is 1 for gray, 2 for gray and alpha, 3 for RGB, 4 for RGB
    and alpha.

    The first of several frames or pages is taken. With `data`, the bytes of a file that lies
    elsewhere, such as in a shard, `path` is only what errors call it. Raises `ImageError`.
    """
    with opened(path, data) as file:
        return _read(file, about=False)[0]


def decode_photo(path: str | Path) -> tuple[np.ndarray, Metadata]:
    """Decodes a photograph, and what its restored image takes over. Raises `ImageError`."""
    with opened(path, None) as file:
        return _read(file, about=True)


def image_info(path: str | Path, data: bytes | None = None) -> ImageInfo:
    """Returns size, real format, orientation, frames and profile from the header alone, without
    decoding.

    `data` as in `decode`. Raises `ImageError`.
    """
    with opened(path, data) as file:
        head = file.read(4)
        file.seek(0)
        if head in TIFF_MAGIC:
            header = tiff_header(file)
            height = header.height
            width = header.width
            orientation = header.orientation
            frames = header.frames
            name, colour = "TIFF", _tiff_colour(file, header.icc)
        else:
            with open_image(file) as image:
                (width, height) = image.size
                name = image.format
                orientation = _orientation(image, file)
                frames, colour = getattr(image, "n_frames", 1), stated_colour(image, file)
    if orientation >= 5:
        height, width = width, height
    profile = ""
    if colour is not None and colour_profile.needs_conversion(colour.icc):
        profile = colour.name or colour_profile.profile_name(colour.icc)
    kind = "JPEG" if name == "MPO" else name
    return ImageInfo(height, width, kind, orientation, frames, profile)


def _read(file: BinaryIO, about: bool) -> tuple[np.ndarray, Metadata]:
    head = file.read(4)
    file.seek(0)
    if head in TIFF_MAGIC:
        tiff = read_tiff(file)
        if tiff is None:
            try:
                return _read_by_pil(file, about)
            except OSError as error:  # PIL's message does not tell what is missing from damage
                tiff = _tiff_after_pil(file, error)
        return _finish_tiff(tiff, file, about)
    return _read_by_pil(file, about)


def _tiff_after_pil(file: BinaryIO, error: OSError) -> TiffPixels:
    """Reads by tifffile what PIL has no decoder for.

    Raises PIL's error if tifffile cannot read it either.
    """
    try:
        file.seek(0)
        tiff = read_tiff(file, pil_cannot=True)
    except UnsupportedError:
        raise
    except Exception:  # damaged: PIL's account of it is as good
        raise error from None
    assert tiff is not None
    return tiff


def _finish_tiff(tiff: TiffPixels, file: BinaryIO, about: bool) -> tuple[np.ndarray, Metadata]:
    colour = _tiff_colour(file, tiff.icc, tiff.pixels.shape[2] <= 2)
    icc = None if colour is None else colour.icc
    pixels = _inks_to_rgb(tiff.pixels, tiff.icc) if tiff.cmyk else _in_srgb(tiff.pixels, icc)
    pixels = _upright(pixels, tiff.orientation)
    if not about:
        return pixels, Metadata()
    file.seek(0)
    header = tiff_header(file)
    metadata = read_metadata(None, file, pixels.shape[:2], header.xmp)
    metadata = metadata._replace(frames=header.frames, notes=metadata.notes + tiff.notes)
    return pixels, _with_profile(metadata, icc, pixels)


def _tiff_colour(file: BinaryIO, icc: bytes | None, gray: bool = False) -> StatedColour | None:
    """The colours of a TIFF file: those of its profile, or Adobe RGB by its EXIF directory."""
    if icc is not None:
        return StatedColour(icc)

    def directory() -> Image.Exif:
        file.seek(0)
        exif = Image.Exif()
        exif.load_from_fp(file)
        return exif

    return adobe_by_exif(directory, gray)


def _read_by_pil(file: BinaryIO, about: bool) -> tuple[np.ndarray, Metadata]:
    file.seek(0)
    with open_image(file) as image:
        frames = getattr(image, "n_frames", 1) if about else 1
        colour = stated_colour(image, file)
        icc = None if colour is None else colour.icc
        early = _orientation(image, file)  # before load: HEIC and PNG drop or move what they had
        pixels = deep_pixels(image, file)
        if pixels is not None:
            orientation = early
        else:
            image.load()
            # after load: PIL turns TIFF by itself there, and drops the tag
            orientation = _orientation(image, file)
            pixels = _pil_pixels(image, icc)
        if image.mode != "CMYK":
            pixels = _in_srgb(pixels, icc)
        pixels = _upright(pixels, orientation)
        if not about:
            return pixels, Metadata()
        tiff = image.format == "TIFF"
        if tiff:
            file.seek(0)
            header = tiff_header(file)
            metadata = read_metadata(None, file, pixels.shape[:2], header.xmp)
            frames = header.frames
            dpi = image.info.get("dpi")
            metadata = metadata._replace(dpi=tuple(map(float, dpi)) if dpi else None)
        else:
            metadata = read_metadata(image, file, pixels.shape[:2])
        return pixels, _with_profile(metadata._replace(frames=frames), icc, pixels)


def _in_srgb(pixels: np.ndarray, icc: bytes | None) -> np.ndarray:
    return pixels if icc is None else colour_profile.to_srgb(pixels, icc)


def _with_profile(metadata: Metadata, icc: bytes | None, pixels: np.ndarray) -> Metadata:
    """Returns metadata with the profile of the restored image: sRGB where the file had one.

    Gray files get none, since an sRGB profile speaks of three channels.
    """
    if icc is None:
        return metadata
    if not colour_profile.usable(icc):
        name = colour_profile.profile_name(icc)
        return metadata._replace(
            notes=(*metadata.notes, f"the colour profile ({name}), which cannot be used")
        )
    return metadata._replace(icc=colour_profile.srgb() if pixels.shape[2] >= 3 else None)


# R = (1 - C) (1 - K), and so for G and B: what PIL does to 8 bits
def _inks_to_rgb(inks: np.ndarray, icc: bytes | None) -> np.ndarray:
    """(H, W, 4) C, M, Y, K, 0 without ink, as (H, W, 3) sRGB: by the profile if it is one of
    inks.
    """
    if icc is not None and colour_profile.fits(icc, 4, cmyk=True):
        converted = colour_profile.to_srgb(inks, icc, cmyk=True)
        if converted.shape[2] == 3:
            return converted
    most = np.iinfo(inks.dtype).max
    paper = most - inks.astype(np.uint64)
    return ((paper[..., :3] * paper[..., 3:] + most // 2) // most).astype(inks.dtype)


def _pil_pixels(image: Image.Image, icc: bytes | None = None) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return np.array(image).astype(np.uint16)[..., None]
    if image.mode == "I" and image.format == "PPM":  # 16-bit PGM
        return np.array(image).clip(0, 65535).astype(np.uint16)[..., None]
    if image.mode in ("I", "F", "LAB"):
        raise UnsupportedError(
            f"pixels of type {image.mode} are not supported; convert it to 8- or 16-bit RGB"
        )
    if image.mode == "CMYK" and icc is not None and colour_profile.fits(icc, 4, cmyk=True):
        return _inks_to_rgb(np.asarray(image), icc)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    # converting to the same mode copies, and so does np.array
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _orientation(image: Image.Image, file: BinaryIO) -> int:
    """EXIF orientation of an opened image, 1 if it has none or its EXIF block is broken (the pixels
    are good still).
    """
    with suppress(Exception):
        # PngImageFile.getexif would decode the whole image, in case the block comes after the
        # pixels
        if image.format == "PNG" and not _exif_after_pixels(file):
            exif = Image.Image.getexif(image)
        else:
            exif = image.getexif()
        value = exif.get(ORIENTATION, 1)
        return value if value in _TURNS else 1
    return 1


def _exif_after_pixels(file: BinaryIO) -> bool:
    position, seen_pixels = file.tell(), False
    try:
        file.seek(len(PNG_MAGIC))
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
