"""More than 8 bits a channel, where PIL would keep 8: PNG, PPM, JPEG 2000, AVIF and HEIC."""

import re
import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image

from lit_mimdit.data.image_file import PNG_MAGIC, UnsupportedError, open_image


def deep_pixels(image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """Returns the pixels of an opened image that has more than 8 bits a channel, else None.

    (H, W, C) uint16, not turned upright; C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha. Depths
    below 16 bits are scaled to 16. Raises `UnsupportedError` where a decoder is missing.
    """
    if image.format == "PNG":
        file.seek(0)
        head = file.read(25)
        return png16_pixels(file) if head[:8] == PNG_MAGIC and head[24] == 16 else None
    if image.format == "PPM":
        return _ppm16_pixels(image, file)
    if image.format == "JPEG2000":
        return _decoded("jpeg2k_decode", file, _jpeg2000_bits(file))
    if image.format == "AVIF":
        return _decoded("avif_decode", file, _avif_bits(file))
    if image.format == "HEIF" and image.info.get("bit_depth", 8) > 8:
        return _heif_pixels(file, image.info["bit_depth"])
    return None


# x' = round(x (2^16 - 1) / (2^bits - 1)), and to 8 bits alike
def scaled(stored: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers of `bits` bits in the full range of uint8 (up to 8 bits) or uint16. A new
    array.
    """
    target = np.uint8 if bits <= 8 else np.uint16
    top, most = 2**bits - 1, np.iinfo(target).max
    if top == most:
        return stored.astype(target)
    wide = np.minimum(stored, top).astype(np.uint64)
    return ((wide * most + top // 2) // top).astype(target)


def png16_pixels(file: BinaryIO) -> np.ndarray:
    """Returns a PNG of 16 bits as (H, W, C) uint16.

    It has alpha where one colour is declared transparent.

    PIL reduces 16-bit colour to its high bytes. Its raw modes for the other byte order give the low
    ones, so it decodes twice. The image decoders of torchvision read 16 bits too, but they are
    deprecated since 0.29 and will be removed.
    """
    parts, transparent = [], None
    for order in "BL":
        file.seek(0)
        with open_image(file) as image:
            codec, box, offset, raw_mode = image.tile[0]
            transparent = image.info.get("transparency")
            if raw_mode == "I;16B":  # gray: PIL keeps all bits
                pixels = np.array(image).astype(np.uint16)[..., None]
                return _with_transparent(pixels, transparent)
            if raw_mode == "LA;16B":
                # read as four bytes a pixel: high and low of gray, high and low of alpha
                image.tile = [(codec, box, offset, "RGBA")]
                return np.asarray(image).view(">u2").astype(np.uint16)
            assert raw_mode in ("RGB;16B", "RGBA;16B"), raw_mode
            image.tile = [(codec, box, offset, raw_mode[:-1] + order)]
            parts.append(np.asarray(image).astype(np.uint16))
    return _with_transparent(parts[0] << 8 | parts[1], transparent)


def _with_transparent(pixels: np.ndarray, colour: int | tuple[int, ...] | None) -> np.ndarray:
    """(H, W, C) with an alpha channel that is 0 where a pixel has the transparent colour."""
    if colour is None or pixels.shape[2] in (2, 4):
        return pixels
    same = (pixels == np.atleast_1d(np.asarray(colour))).all(axis=2, keepdims=True)
    return np.concatenate([pixels, np.where(same, 0, 65535).astype(np.uint16)], axis=2)


def encode_png16(pixels: np.ndarray) -> bytes:
    """Returns a PNG of 16 bits a channel, which neither PIL nor torchvision writes
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
    return PNG_MAGIC + b"".join(png_chunk(name, body) for name, body in chunks)


def png_chunk(name: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG file with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _ppm16_pixels(image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """A colour PPM of more than 8 bits; PIL keeps all bits of gray ones by itself."""
    file.seek(0)
    magic = file.read(2)
    arguments = image.tile[0][3] if image.tile else ()
    top = arguments[1] if isinstance(arguments, tuple) and len(arguments) > 1 else 255
    if magic not in (b"P3", b"P6") or not isinstance(top, int) or top <= 255:
        return None
    count = image.width * image.height * 3
    file.seek(image.tile[0][2])
    if magic == b"P6":
        data = file.read(2 * count)
        if len(data) < 2 * count:
            raise ValueError("truncated file: pixel data are missing")
        levels = np.frombuffer(data, ">u2").astype(np.uint64)
    else:
        words = re.sub(rb"#[^\r\n]*", b"", file.read()).split()
        if len(words) < count:
            raise ValueError("truncated file: pixel data are missing")
        levels = np.array([int(word) for word in words[:count]], np.uint64)
    if int(levels.max(initial=0)) > top:
        raise ValueError(f"a level of {int(levels.max())} above the file's own maximum of {top}")
    wide = (levels * 65535 + top // 2) // top
    return wide.astype(np.uint16).reshape(image.height, image.width, 3)


def _jpeg2000_bits(file: BinaryIO) -> int:
    """Bits of the first channel, from the size marker (SIZ) of the codestream."""
    file.seek(0)
    head = file.read(1 << 16)
    at = head.find(b"\xff\x4f\xff\x51")
    # SOC 2, SIZ 2, length 2, Rsiz 2, eight sizes of 4, Csiz 2, Ssiz 1
    return (head[at + 42] & 0x7F) + 1 if 0 <= at < len(head) - 42 else 8


def _avif_bits(file: BinaryIO) -> int:
    """Bits of a channel, from the AV1 codec configuration box."""
    file.seek(0)
    head = file.read(1 << 16)
    at = head.find(b"av1C")
    if not 0 <= at < len(head) - 6:
        return 8
    high, twelve = head[at + 6] & 0x40, head[at + 6] & 0x20
    return (12 if twelve else 10) if high else 8


def _decoded(name: str, file: BinaryIO, bits: int) -> np.ndarray | None:
    if bits <= 8:
        return None
    try:
        import imagecodecs
    except ImportError as error:
        raise UnsupportedError(
            f"{bits} bits a channel need another package; run: pip install imagecodecs"
        ) from error
    file.seek(0)
    pixels = getattr(imagecodecs, name)(file.read())
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] > 4 or pixels.dtype != np.uint16:
        raise UnsupportedError(
            f"pixels {pixels.dtype} {pixels.shape} are not supported; convert it to 16-bit RGB"
        )
    return scaled(pixels, bits)


def _heif_pixels(file: BinaryIO, bits: int) -> np.ndarray:
    from pillow_heif import open_heif

    file.seek(0)
    pixels = np.asarray(open_heif(file, convert_hdr_to_8bit=False, remap_alpha=False))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return scaled(pixels >> (16 - bits), bits)
