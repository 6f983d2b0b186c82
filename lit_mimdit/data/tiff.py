"""TIFF files of every depth, band count and compression, read by tifffile and imagecodecs.

What PIL reads without loss it keeps: 8 bits of gray, RGB, YCbCr, CMYK or a palette. Everything else
comes here. Numbers become 8 or 16 bits a channel:

    9 to 16 bits      x' = x * 65535 / (2^bits - 1)
    32 bits           x' = x / 65537
    float             x' = x * 65535, for x in [0, 1]
"""

from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from lit_mimdit.data.deep_pixels import scaled
from lit_mimdit.data.image_file import UnsupportedError, require_allowed

ORIENTATION_TAG = 274
_ICC_TAG = 34675
_DNG_VERSION_TAG = 50706
_SUB_IFDS_TAG = 330
_XMP_TAG = 700
_RAW = (32803, 34892)  # photometric: colour filter array, linear raw
_ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
_GRAY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)


class TiffPixels(NamedTuple):
    """The pixels of a TIFF file as stored, and what its tags say of them."""

    pixels: np.ndarray  # (H, W, C) uint8 or uint16, C = 1 to 4
    orientation: int  # 1 to 8
    icc: bytes | None
    cmyk: bool  # the four channels are inks, 0 without ink
    notes: tuple[str, ...]  # what is left out, a phrase each


class TiffHeader(NamedTuple):
    """The facts in the tags of a TIFF file, read without decoding.

    Sizes are those before orientation.
    """

    height: int
    width: int
    orientation: int
    icc: bytes | None
    xmp: bytes | None
    frames: int  # pages, reduced copies left out


def tiff_header(file: BinaryIO) -> TiffHeader:
    """Returns size, orientation, profile and number of pages. `UnsupportedError` for camera raw
    files.
    """
    with tifffile.TiffFile(file) as tiff:
        page = _photograph(tiff)
        _require_no_raw(tiff)
        frames = sum(map(_is_photograph, tiff.pages))
        return TiffHeader(
            page.imagelength,
            page.imagewidth,
            _orientation(page),
            _tag(page, _ICC_TAG),
            _tag(page, _XMP_TAG),
            max(1, frames),
        )


def read_tiff(file: BinaryIO, pil_cannot: bool = False) -> TiffPixels | None:
    """Returns the first page of a TIFF file, or None where PIL reads it without loss.

    Reduced copies and masks are no pages here, also where they come first; PIL takes any.

    Args:
        file: opened at its beginning.
        pil_cannot: read it even then, since PIL has no decoder for it.

    Raises:
        UnsupportedError: pixels of another kind, or a compression without a decoder.
        ValueError: pixel data are missing.
    """
    with tifffile.TiffFile(file) as tiff:
        page = _photograph(tiff)
        _require_no_raw(tiff)
        require_allowed(page.imagewidth, page.imagelength)
        if not pil_cannot and page is tiff.pages.first and _pil_is_exact(page):
            return None
        bands, alpha, notes = _bands(page)
        _require_kind(page)
        _require_decoder(page)
        if any(
            offset + count > tiff.filehandle.size or count == 0
            for offset, count in zip(page.dataoffsets, page.databytecounts)
        ):
            # tifffile would fill them with zeros
            raise ValueError("truncated file: pixel data are missing")
        try:
            stored = page.asarray()
        except (ImportError, ModuleNotFoundError) as error:
            raise _no_decoder(page) from error
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise _no_decoder(page) from error
            raise
        if stored.ndim == 2:
            stored = stored[..., None]
        elif page.axes.startswith("S"):
            stored = np.moveaxis(stored, 0, 2)
        pixels = _levels(stored[..., list(bands)], page)
        if page.photometric == PHOTOMETRIC.MINISWHITE:
            pixels[..., 0] = np.iinfo(pixels.dtype).max - pixels[..., 0]
        if alpha == EXTRASAMPLE.ASSOCALPHA:
            pixels = _unmultiplied(pixels)
        cmyk = page.photometric == PHOTOMETRIC.SEPARATED
        return TiffPixels(pixels, _orientation(page), _tag(page, _ICC_TAG), cmyk, notes)


def _is_photograph(page: tifffile.TiffPage) -> bool:
    return not page.is_reduced and not page.is_mask


def _photograph(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """The first page that is neither a reduced copy nor a mask; the first if all are."""
    return next(filter(_is_photograph, tiff.pages), tiff.pages.first)


def _pil_is_exact(page: tifffile.TiffPage) -> bool:
    """Returns whether PIL reads all that the page holds, in the same numbers."""
    if page.bitspersample not in (1, 2, 4, 8) or page.sampleformat != 1 or page.imagedepth != 1:
        return False
    if page.photometric in (*_GRAY, PHOTOMETRIC.PALETTE):
        return page.samplesperpixel == 1
    if page.photometric == PHOTOMETRIC.RGB:
        return page.samplesperpixel == 3 or tuple(page.extrasamples) == (EXTRASAMPLE.UNASSALPHA,)
    return page.photometric in (PHOTOMETRIC.YCBCR, PHOTOMETRIC.CIELAB) or (
        page.photometric == PHOTOMETRIC.SEPARATED and page.samplesperpixel == 4
    )


def _is_jpeg(page: tifffile.TiffPage) -> bool:
    """Returns whether its decoder turns the colours of the page into RGB."""
    return page.photometric == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.JPEG


def _bands(page: tifffile.TiffPage) -> tuple[tuple[int, ...], int | None, tuple[str, ...]]:
    """Returns which samples are gray or RGB and alpha, the kind of alpha, and what is left out.

    Programs for satellite images store RGB as gray with two unspecified extra samples: three bands
    are RGB, and four are RGB and one more.
    """
    count, extra = page.samplesperpixel, tuple(page.extrasamples)
    name = _name(page.photometric)
    if page.photometric == PHOTOMETRIC.SEPARATED:
        if count != 4:
            raise UnsupportedError(
                f"{count} inks or bands; only CMYK, four of them, is read; convert it to RGB"
            )
        return (0, 1, 2, 3), None, ()
    if page.photometric in _GRAY:
        colours = 3 if count in (3, 4) and not any(kind in _ALPHA for kind in extra[:2]) else 1
        if page.photometric == PHOTOMETRIC.MINISWHITE:
            colours = 1
    elif page.photometric == PHOTOMETRIC.RGB or _is_jpeg(page):
        colours = 3
    else:
        raise UnsupportedError(
            f"{page.bitspersample}-bit {name} pixels are not supported; convert it to 8- or 16-bit"
            " RGB"
        )
    rest = count - colours
    tail = extra[-rest:] if rest else ()
    if rest == 0:
        return tuple(range(colours)), None, ()
    if tail and tail[0] in _ALPHA:
        more = (f"{rest - 1} extra band(s)",) if rest > 1 else ()
        return tuple(range(colours + 1)), tail[0], more
    if colours == 3 and (page.photometric == PHOTOMETRIC.RGB or rest == 1):
        return (0, 1, 2), None, (f"{rest} extra band(s) beside RGB",)
    raise UnsupportedError(
        f"{count} bands of which none is said to be colour or alpha; only 1 (gray), 3 (RGB) and 4"
        " (RGB and alpha, or one more band) are read; choose three of them"
    )


def _require_kind(page: tifffile.TiffPage) -> None:
    bits, kind = page.bitspersample, page.sampleformat
    name = {1: "unsigned integers", 2: "signed integers", 3: "floats"}.get(kind, "complex numbers")
    fine = (kind == 1 and bits in (*range(1, 17), 32)) or (kind == 3 and bits in (16, 24, 32, 64))
    if not isinstance(bits, int):
        raise UnsupportedError(f"bands of different depths, {bits}; convert it to 8- or 16-bit RGB")
    if not fine or page.dtype is None:
        raise UnsupportedError(
            f"pixels that are {name} of {bits} bits are not supported; convert it to 8- or 16-bit"
            " RGB"
        )
    if page.imagedepth != 1:
        raise UnsupportedError(
            f"a volume of {page.imagedepth} layers, and no image; save its layers as images"
        )


def _require_decoder(page: tifffile.TiffPage) -> None:
    if page.compression != COMPRESSION.NONE:
        try:
            tifffile.TIFF.DECOMPRESSORS[page.compression]
        except (KeyError, ImportError) as error:
            raise _no_decoder(page) from error


def _no_decoder(page: tifffile.TiffPage) -> UnsupportedError:
    name = _name(page.compression)
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        return UnsupportedError(
            f"TIFF compression {name} needs another package; run: pip install imagecodecs"
        )
    return UnsupportedError(
        f"TIFF compression {name} (of {page.bitspersample} bits) has no decoder here; save it"
        " uncompressed or with LZW"
    )


def _require_no_raw(tiff: tifffile.TiffFile) -> None:
    """Raw files of cameras are TIFF files whose first page is a small preview."""
    page = tiff.pages.first
    tiff.filehandle.seek(8)
    raw = _DNG_VERSION_TAG in page.tags or tiff.filehandle.read(2) == b"CR"
    raw = raw or _kind(page) in _RAW
    if not raw and _SUB_IFDS_TAG in page.tags and page.pages is not None:
        raw = any(_kind(below) in _RAW for below in page.pages)
    if raw:
        raise UnsupportedError(
            "a camera's raw file, which holds no finished image; develop it first (to 16-bit TIFF)"
        )


def _kind(page: tifffile.TiffPage) -> int:
    return int(getattr(page, "photometric", 0) or 0)


def _levels(stored: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """(H, W, C) of any supported type as uint8 (up to 8 bits) or uint16. A new array."""
    bits = page.bitspersample
    if stored.dtype.kind == "f":
        if not np.isfinite(stored).all():
            raise UnsupportedError(
                "float pixels that are no numbers (NaN or infinity); replace them first"
            )
        low, high = float(stored.min()), float(stored.max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise UnsupportedError(
                f"float pixels from {low:.4g} to {high:.4g}; scale them to 0 to 1, where 0 is"
                " black and 1 is white"
            )
        levels = np.multiply(stored, 65535.0, dtype=np.float64 if bits > 32 else np.float32)
        return np.clip(np.rint(levels), 0, 65535).astype(np.uint16)
    return scaled(stored, bits) if bits <= 16 else _from_32_bits(stored)


def _from_32_bits(stored: np.ndarray) -> np.ndarray:
    return ((stored.astype(np.uint64) + 32768) // 65537).astype(np.uint16)


# c = c' / a: colours are stored multiplied by alpha
def _unmultiplied(pixels: np.ndarray) -> np.ndarray:
    most = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.float64).clip(1)
    colours = (pixels[..., :-1] * (most / alpha)).round().clip(0, most)
    return np.concatenate([colours.astype(pixels.dtype), pixels[..., -1:]], axis=2)


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(ORIENTATION_TAG)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1


def _tag(page: tifffile.TiffPage, code: int) -> bytes | None:
    tag = page.tags.get(code)
    return tag.value if tag is not None and isinstance(tag.value, bytes) else None


def _name(value: object) -> str:
    return str(getattr(value, "name", value)).replace("_", " ")
