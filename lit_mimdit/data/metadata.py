"""Reads what a file says about its picture besides the pixels: EXIF, XMP, resolution and texts.

A restored image keeps all of it. Its pixels are upright, so orientation becomes 1; thumbnails show
the degraded picture, so they are dropped; its colours are sRGB, and EXIF says so.
"""

import re
from typing import Any, BinaryIO, NamedTuple

from PIL import ExifTags, Image

ORIENTATION = 0x0112
_COLOUR_SPACE = 0xA001
_WIDTH = 0xA002
_HEIGHT = 0xA003
_INTEROP = 0xA005
_EXIF_IFD, _GPS_IFD = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo
# of the first directory: what describes the picture and not how its pixels are stored
_DESCRIPTIVE = {
    270,  # ImageDescription
    271,  # Make
    272,  # Model
    282,  # XResolution
    283,  # YResolution
    296,  # ResolutionUnit
    305,  # Software
    306,  # DateTime
    315,  # Artist
    316,  # HostComputer
    18246,  # Rating
    18249,  # RatingPercent
    33432,  # Copyright
    *range(40091, 40096),  # title, comment, author, keywords, subject of Windows
}


class Metadata(NamedTuple):
    """The metadata that a restored image takes over from its input.

    `frames` is how many pictures the file holds; `notes` says what is not taken over, a phrase
    each.
    """

    icc: bytes | None = None  # the profile to embed
    exif: bytes | None = None  # a TIFF structure, without the "Exif\0\0" before it
    xmp: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()  # keyword and text, of PNG files
    dpi: tuple[float, float] | None = None
    frames: int = 1
    notes: tuple[str, ...] = ()


def read_metadata(
    image: Image.Image | None, file: BinaryIO, size: tuple[int, int], xmp: bytes | None = None
) -> Metadata:
    """Returns the metadata of an image file, cleaned for its restored image.

    Args:
        image: opened by PIL; None for a TIFF that PIL does not know.
        file: the same, for TIFF directories.
        size: (height, width) of the upright pixels.
        xmp: of a file without `image`.
    """
    notes: list[str] = []
    try:
        exif = image.getexif() if image is not None else _tiff_directory(file)
        block = clean_exif(exif, size)
    except Exception:  # a broken block raises errors of every type, and the pixels are good still
        block, _ = None, notes.append("EXIF data, which cannot be read")
    info: dict[Any, Any] = {} if image is None else image.info
    xmp = info.get("xmp", xmp) or info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    dpi = info.get("dpi")
    if info.get("photoshop"):
        notes.append("IPTC or Photoshop data")
    text = tuple(
        (key, str(value))
        for key, value in getattr(image, "text", {}).items()
        if not key.startswith(("XML:com.adobe.xmp", "Raw profile type"))
    )
    return Metadata(
        exif=block,
        xmp=clean_xmp(xmp) if isinstance(xmp, bytes) and xmp else None,
        text=text,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0 else None,
        notes=tuple(notes),
    )


def _tiff_directory(file: BinaryIO) -> Image.Exif:
    file.seek(0)
    exif = Image.Exif()
    exif.load_from_fp(file)
    return exif


def clean_exif(exif: Image.Exif, size: tuple[int, int]) -> bytes | None:
    """Returns an EXIF block for upright pixels of `size` (height, width) in sRGB, without a
    thumbnail.

    None if there is nothing to tell. Raises whatever a damaged block makes Pillow raise.
    """
    new = Image.Exif()
    for tag, value in exif.items():
        if tag in _DESCRIPTIVE:
            new[tag] = value
    camera = {k: v for k, v in exif.get_ifd(_EXIF_IFD).items() if k != _INTEROP}
    height, width = size
    for tag, value in ((_COLOUR_SPACE, 1), (_WIDTH, width), (_HEIGHT, height)):
        if tag in camera:
            camera[tag] = value
    place = exif.get_ifd(_GPS_IFD)
    if not (len(new) or camera or place):
        return None
    new[ORIENTATION] = 1
    if camera:
        new[_EXIF_IFD] = camera
    if place:
        new[_GPS_IFD] = dict(place)
    return new.tobytes().removeprefix(b"Exif\0\0")


def clean_xmp(xmp: bytes) -> bytes:
    """XMP with the orientation 1 and without thumbnails."""
    xmp = re.sub(rb"""(tiff:Orientation\s*=\s*["'])\d+""", rb"\g<1>1", xmp)
    xmp = re.sub(rb"(<tiff:Orientation[^>]*>)\s*\d+\s*(<)", rb"\g<1>1\g<2>", xmp)
    return re.sub(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", b"", xmp, flags=re.DOTALL)
