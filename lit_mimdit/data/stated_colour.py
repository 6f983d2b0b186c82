"""Colours that a file states without an embedded profile, as a profile.

PNG has the chunks cICP, sRGB, gAMA and cHRM (PNG 3rd edition, section 4.3). AVIF and HEIC have a
video code (nclx; ITU-T H.273). Cameras mark Adobe RGB in EXIF (DCF 2.0: interoperability R03). In
PNG a cICP chunk goes before an embedded profile; elsewhere a profile goes first.
"""

import struct
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from lit_mimdit.data.image_file import PNG_MAGIC, UnsupportedError

Points = tuple[float, ...]  # x and y of white, red, green and blue (CIE 1931)

SRGB: Points = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE: Points = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_GAMMA = 2.19921875
# H.273, table 2; 2 is "unspecified", which players take for 1
PRIMARIES: dict[int, Points] = {
    1: SRGB,
    2: SRGB,
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.3127, 0.3290, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (0.3127, 0.3290, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
# H.273, table 3: exponents; None is the curve of sRGB, as which players show video's
EXPONENTS: dict[int, float | None] = {
    **dict.fromkeys((1, 2, 6, 13, 14, 15)),
    4: 2.2,
    5: 2.8,
    8: 1.0,
}
HDR = {16: "PQ", 18: "HLG"}
_CODED_GAMMA = 1 / 2.2  # what a PNG of sRGB says in gAMA
_SAME_GAMMA = 0.05  # relative: libpng's threshold below which two gammas are one
_SAME_POINT = 0.005
_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_EXIF_IFD = 0x8769
_INTEROP_IFD = 0xA005
_COLOUR_SPACE = 0xA001


class StatedColour(NamedTuple):
    """Colours of a file: a profile, and what states them where it is not embedded."""

    icc: bytes
    name: str = ""  # empty: the profile is embedded and has its own


def stated_colour(image: Image.Image, file: BinaryIO) -> StatedColour | None:
    """Returns the colours that a file states; None where it states none, which means sRGB.

    Args:
        image: opened by PIL, not decoded yet.
        file: the same file; its position is kept.

    Raises:
        UnsupportedError: its values are HDR (PQ or HLG), or imagecodecs is missing.
    """
    gray = image.mode in _GRAY_MODES
    embedded = image.info.get("icc_profile")
    own = None if embedded is None else StatedColour(embedded)
    if image.format == "PNG":
        chunks = _png_chunks(file)
        code = chunks.get(b"cICP", b"")
        if len(code) >= 2:
            return _of_code(code[0], code[1], gray, "cICP")
        return own or (None if b"sRGB" in chunks else _of_gamma(chunks, gray))
    if own is not None:
        return own
    if image.format in ("AVIF", "HEIF"):
        return _of_video(image, file, gray)
    return adobe_by_exif(image.getexif, gray)


def adobe_by_exif(read: Callable[[], Image.Exif], gray: bool) -> StatedColour | None:
    """Returns Adobe RGB where the EXIF block that `read` gives says it.

    It does so by interoperability R03 without colour space 1, or by colour space 2.
    """
    index, space = "", None
    with suppress(Exception):  # a broken block raises errors of every type, and states nothing
        exif = read()
        space = exif.get_ifd(_EXIF_IFD).get(_COLOUR_SPACE)
        index = exif.get_ifd(_INTEROP_IFD).get(1, "")  # last: without one, Pillow 12 raises
    marked = index in ("R03", b"R03", b"R03\0") and space != 1
    if not marked and space != 2:
        return None
    return StatedColour(made_profile(ADOBE, ADOBE_GAMMA, gray), "Adobe RGB (by EXIF)")


def _of_code(primaries: int, transfer: int, gray: bool, by: str) -> StatedColour | None:
    """The colours of a video code; None for codes of sRGB, and for unknown ones."""
    if transfer in HDR:
        raise UnsupportedError(
            f"values are HDR ({HDR[transfer]} by {by}), and sRGB is expected; convert it to SDR"
        )
    if primaries not in PRIMARIES or transfer not in EXPONENTS:
        return None
    points, exponent = PRIMARIES[primaries], EXPONENTS[transfer]
    if points == SRGB and exponent is None:
        return None
    name = f"primaries {primaries} and transfer {transfer} by {by}"
    return StatedColour(made_profile(points, exponent, gray), name)


def _of_gamma(chunks: dict[bytes, bytes], gray: bool) -> StatedColour | None:
    """The colours of gAMA and cHRM; None where they say sRGB, or nothing."""
    points, exponent = SRGB, None
    if len(chunks.get(b"cHRM", b"")) == 32:
        said = tuple(value / 1e5 for value in struct.unpack(">8I", chunks[b"cHRM"]))
        if max(abs(a - b) for a, b in zip(said, SRGB, strict=True)) > _SAME_POINT:
            points = said
    if len(chunks.get(b"gAMA", b"")) == 4:
        (coded,) = struct.unpack(">I", chunks[b"gAMA"])
        usual = abs(coded / 1e5 / _CODED_GAMMA - 1) <= _SAME_GAMMA
        # a file of other primaries has a power as its curve, and not that of sRGB
        if coded and not (usual and points == SRGB):
            exponent = 1e5 / coded
    if points == SRGB and exponent is None:
        return None
    return StatedColour(made_profile(points, exponent, gray), "gAMA and cHRM chunks")


def _of_video(image: Image.Image, file: BinaryIO, gray: bool) -> StatedColour | None:
    """The colours of the nclx box of an AVIF or HEIC file."""
    nclx: dict[str, Any] = image.info.get("nclx_profile") or {}
    if nclx:
        codes = int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])
        return _of_code(*codes, gray, "nclx")
    position = file.tell()
    file.seek(0)
    head = file.read(1 << 16)  # boxes about the picture lie in front of its data
    file.seek(position)
    place = head.find(b"colrnclx")
    if place < 0 or len(head) < place + 12:
        return None
    return _of_code(*struct.unpack(">HH", head[place + 8 : place + 12]), gray, "nclx")


def _png_chunks(file: BinaryIO) -> dict[bytes, bytes]:
    """The small chunks in front of the pixels of a PNG file, by name."""
    position, chunks = file.tell(), {}
    try:
        file.seek(len(PNG_MAGIC))
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"IDAT":
                break
            if name in (b"cICP", b"sRGB", b"gAMA", b"cHRM"):
                chunks[name] = file.read(min(length, 64))
                length -= len(chunks[name])
            file.seek(length + 4, 1)
    finally:
        file.seek(position)
    return chunks


@lru_cache(maxsize=64)
def made_profile(points: Points, exponent: float | None, gray: bool) -> bytes:
    """Returns a profile of these primaries and curve; no bytes if there is no such profile.

    Args:
        points: x and y of white, red, green and blue.
        exponent: of the curve, light = value^exponent; None for the curve of sRGB.
        gray: make one for a single channel, which has white and curve only.

    Raises:
        UnsupportedError: imagecodecs is missing.
    """
    try:
        import imagecodecs
    except ImportError as error:
        raise UnsupportedError(
            "colours other than sRGB need another package; run: pip install imagecodecs"
        ) from error
    curve: dict[str, Any] = {"gamma": exponent}
    if exponent is None:
        value = np.linspace(0, 1, 4096)
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        curve = {"transferfunction": linear.astype(np.float32)}
    white, others = (*points[:2], 1.0), [points[i : i + 2] for i in (2, 4, 6)]
    if not gray:
        curve["primaries"] = [value for x, y in others for value in (x, y, 1.0)]
    try:
        return imagecodecs.cms_profile("gray" if gray else "rgb", whitepoint=white, **curve)
    except Exception:  # primaries on a line, a white without light: lcms has errors of its own
        return b""
