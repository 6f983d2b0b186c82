"""Opens image files: which formats are read, how many pixels are allowed, and one line for whatever
is wrong with a file.
"""

import io
import os
import re
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from lit_mimdit.files import FileError

# A fixed list, since some of PIL's other readers start programs (EPS starts Ghostscript).
READABLE = ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "BMP", "GIF", "JPEG2000", "PPM")
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
HEAD = 64  # bytes that are enough to tell what a file is
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")

_UNREAD = ", which is not read; convert it to PNG or TIFF"
_LOSSLESS_JPEG = (0xC3, 0xC7, 0xCB, 0xCF)  # markers of their frames

MAX_MEGAPIXELS = 250.0  # phones make 200
MAX_MEGAPIXELS_VARIABLE = "LIT_MIMDIT_MAX_MEGAPIXELS"
_OPENING = threading.Lock()


class ImageError(FileError):
    """An image file that cannot be read or written, in one line with its path and a remedy."""


class UnsupportedError(NotImplementedError):
    """Pixels of a kind that this package does not read; the message names the kind."""


def kind_of(head: bytes) -> str | None:
    """Returns the format that the first `HEAD` bytes of a file say, or None if they begin no image.

    It is a name of `READABLE`, or "HEIF".
    """
    brand, brands = head[8:12], head[8:HEAD]
    if head[4:8] == b"ftyp":
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIF" if brand in (*_HEIF_BRANDS, b"mif1", b"msf1") else None
    if head[:4] in TIFF_MAGIC:
        return "TIFF"
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else None
    if re.match(rb"P[1-6][\s#]", head):
        return "PPM"
    starts = {
        PNG_MAGIC: "PNG",
        b"\xff\xd8\xff": "JPEG",
        b"GIF87a": "GIF",
        b"GIF89a": "GIF",
        b"\xff\x4f\xff\x51": "JPEG2000",
        b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    }
    if (name := _begun(head, starts)) is not None:
        return name
    # "BM" alone also begins texts: the reserved bytes of the header are 0
    return "BMP" if head[:2] == b"BM" and head[6:10] == bytes(4) else None


def _begun(head: bytes, starts: dict[bytes, str]) -> str | None:
    return next((name for start, name in starts.items() if head.startswith(start)), None)


def foreign_kind(head: bytes) -> str | None:
    """Returns what else the first `HEAD` bytes of a file begin, and what to do. None if they say
    nothing.
    """
    if head[4:8] == b"ftyp":
        raw = head[8:11] == b"crx"
        return f"a raw file of a camera{_UNREAD}" if raw else "not an image but a film"
    starts = {
        b"\xff\x0a": "a JPEG XL image",
        b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL image",
        b"II\xbc": "a JPEG XR image",
        b"8BPS": "a Photoshop file",
        b"v/1\x01": "an OpenEXR image",
        b"#?RADIANCE": "a Radiance HDR image",
        b"#?RGBE": "a Radiance HDR image",
        b"PF\n": "a PFM image",
        b"Pf\n": "a PFM image",
        b"P7\n": "a PAM image",
        b"qoif": "a QOI image",
        b"DDS ": "a DDS image",
        b"\0\0\x01\0": "an icon",
        b"%PDF": "not an image but a PDF document",
        b"%!PS": "not an image but a PostScript document",
        b"FUJIFILMCCD-RAW": "a raw file of a camera",
        b"IIU\0": "a raw file of a camera",
        b"IIRO": "a raw file of a camera",
        b"FOVb": "a raw file of a camera",
        b"\x1aE\xdf\xa3": "not an image but a film",
        b"PK\x03\x04": "not an image but a ZIP archive",
    }
    if (name := _begun(head, starts)) is not None:
        return name if name.startswith("not") else f"{name}{_UNREAD}"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "not an image but a web page"
    return f"an SVG drawing{_UNREAD}" if text.startswith(b"<svg") else None


def _jpeg_kind(file: BinaryIO) -> str | None:
    """Returns the kind of a JPEG that PIL cannot open, by the frame's header.

    None if nothing is special.
    """
    file.seek(2)
    # every segment begins with 0xFF, its marker and its length
    while len(marker := file.read(4)) == 4 and marker[0] == 0xFF:
        (length,) = struct.unpack(">H", marker[2:])
        if marker[1] in _LOSSLESS_JPEG:
            return f"a lossless JPEG image{_UNREAD}"
        if marker[1] == 0xF7:
            return f"a JPEG-LS image{_UNREAD}"
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC):
            bits = file.read(1)
            return f"a JPEG image of {bits[0]} bits{_UNREAD}" if bits and bits[0] != 8 else None
        file.seek(length - 2, os.SEEK_CUR)
    return None


def pixel_limit() -> float:
    """Returns how many megapixels an image may have.

    The environment variable `LIT_MIMDIT_MAX_MEGAPIXELS` decides, or else `MAX_MEGAPIXELS`. Raises
    ValueError if the variable holds no positive number.
    """
    said = os.environ.get(MAX_MEGAPIXELS_VARIABLE)
    if said is None:
        return MAX_MEGAPIXELS
    try:
        value = float(said)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ValueError(
            f"{MAX_MEGAPIXELS_VARIABLE} is {said!r}: give how many megapixels an image may have,"
            " such as 250"
        )
    return value


@contextmanager
def allowed_megapixels(limit: float) -> Iterator[None]:
    """Within the block, images of up to `limit` megapixels are read, in loader processes too."""
    if not limit > 0:
        raise ValueError(f"max_megapixels is {limit}: it must be more than 0")
    before = os.environ.get(MAX_MEGAPIXELS_VARIABLE)
    os.environ[MAX_MEGAPIXELS_VARIABLE] = repr(float(limit))
    try:
        yield
    finally:
        if before is None:
            del os.environ[MAX_MEGAPIXELS_VARIABLE]
        else:
            os.environ[MAX_MEGAPIXELS_VARIABLE] = before


def require_allowed(width: int, height: int) -> None:
    """Raises PIL's DecompressionBombError for more pixels than `pixel_limit` allows."""
    limit = pixel_limit()
    if width * height > limit * 1e6:
        raise Image.DecompressionBombError(
            f"{width} x {height} are {width * height / 1e6:.1f} megapixels, and at most {limit:g}"
            " are read"
        )


def open_image(file: BinaryIO) -> Image.Image:
    """Opens an image by its content, without decoding it.

    `pixel_limit` takes the place of PIL's own limit. Raises what PIL raises.
    """
    head = file.read(HEAD)
    file.seek(0)
    formats = READABLE
    if kind_of(head) == "HEIF":
        register_heif()
        formats = ("HEIF",)
    with _OPENING:  # PIL's limit belongs to the process, and threads open images side by side
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=formats)
        except Image.UnidentifiedImageError as error:
            foreign = foreign_kind(head) if kind_of(head) is None else None
            if head.startswith(b"\xff\xd8"):
                foreign = _jpeg_kind(file)
            if foreign is None:
                raise
            raise UnsupportedError(foreign) from error
        finally:
            Image.MAX_IMAGE_PIXELS = before
    try:
        require_allowed(*image.size)
    except Image.DecompressionBombError:
        image.close()
        raise
    return image


def register_heif() -> None:
    """Lets PIL open HEIC and HEIF files. `UnsupportedError` without pillow-heif."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise UnsupportedError(
            "a HEIC or HEIF image, which needs another package; run: pip install pillow-heif"
        ) from error
    if "HEIF" not in Image.OPEN:
        register_heif_opener(thumbnails=False)


@contextmanager
def opened(path: str | Path, data: bytes | None) -> Iterator[BinaryIO]:
    """The file opened for reading, or its bytes `data` where it lies elsewhere.

    Whatever goes wrong with the file inside the block becomes an `ImageError`.
    """
    pixel_limit()  # a wrong setting is no fault of the file
    try:
        if data is None and stat.S_ISFIFO(os.stat(path).st_mode):
            raise ImageError(f"{path}: a pipe and no file")  # opening it would wait for ever
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
            f"{path}: not an image in a known format ({', '.join(READABLE)}), or its header is"
            " corrupt"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path}: refused as a possible decompression bomb: {one_line(error)}; raise the limit"
            f" with {MAX_MEGAPIXELS_VARIABLE}, or with --max_megapixels of restore"
        ) from error
    except NotImplementedError as error:
        raise ImageError(f"{path}: {one_line(error)}") from error
    except Exception as error:  # decoders answer broken bytes with errors of every type
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
        message = one_line(error)
        kind = (
            "truncated"
            if re.search("truncat|failed to read", message, re.IGNORECASE)
            else "truncated or corrupt"
        )
        raise ImageError(
            f"{path}: the image is {kind} ({message}); copy or download it again"
        ) from error


def one_line(error: Exception) -> str:
    """Returns the message of an error in one line of at most 160 characters."""
    return " ".join(str(error).split())[:160] or type(error).__name__
