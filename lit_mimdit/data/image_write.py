"""Writes images as PNG, JPEG, TIFF or WebP, whole or not at all, with metadata of their inputs."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin
from torch import Tensor

from lit_mimdit.data.deep_pixels import encode_png16, png_chunk
from lit_mimdit.data.image_file import PNG_MAGIC, ImageError
from lit_mimdit.data.metadata import Metadata
from lit_mimdit.files import write_bytes

OUTPUT_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
}
LONGEST = {"JPEG": 65500, "WebP": 16383}  # pixels a side, where a format has a limit
_JPEG_SEGMENT = 65500  # bytes of EXIF or XMP that one segment of a JPEG holds
_MAKER_NOTE = 0x927C
_EXIF_IFD = 0x8769
_GPS_IFD = 0x8825
_IHDR_END = len(PNG_MAGIC) + 25


def output_format(path: str | Path) -> str:
    """Returns the format that `write_photo` takes for this name: "PNG", "JPEG", "TIFF" or "WebP".

    Raises ValueError for any other extension: call it before a long computation, not after.
    """
    extension = Path(path).suffix.lower()
    if extension not in OUTPUT_FORMATS:
        raise ValueError(
            f"{path}: cannot write images of type {extension!r}; choose one of"
            f" {', '.join(OUTPUT_FORMATS)}"
        )
    return OUTPUT_FORMATS[extension]


def require_writable(path: str | Path, height: int, width: int) -> None:
    """`ImageError` if the format of this name cannot hold so many pixels: before the work."""
    kind = output_format(path)
    longest = LONGEST.get(kind)
    if longest is not None and max(height, width) > longest:
        raise ImageError(
            f"{path}: {width} x {height} pixels cannot be encoded as {kind}, which holds"
            f" {longest} a side; write .png or .tif"
        )


def losses(path: str | Path, alpha: bool, bits: int, metadata: Metadata) -> list[str]:
    """Returns what the format of this name does not hold of an image, a phrase each."""
    kind = output_format(path)
    lost = []
    if kind == "JPEG" and alpha:
        lost.append(
            "JPEG holds no alpha channel, it is left out; write .png, .tif or .webp to keep it"
        )
    if kind in ("JPEG", "WebP") and bits == 16:
        lost.append(f"{kind} holds 8 bits, written with 8 of 16; write .png or .tif to keep them")
    if kind != "PNG" and metadata.text:
        lost.append(f"{kind} holds no text chunks of PNG, they are left out; write .png")
    kept = fitted(kind, metadata)
    for name in ("exif", "xmp"):
        before, after = getattr(metadata, name), getattr(kept, name)
        if before != after:
            what = "shortened" if after else "left out"
            lost.append(
                f"JPEG holds 65,500 bytes of {name.upper()}, these {len(before):,} are {what}"
            )
    return lost


def write_photo(
    path: str | Path,
    rgb: Tensor,
    alpha: Tensor | None = None,
    gray: bool = False,
    bits: int = 8,
    metadata: Metadata | None = None,
) -> None:
    """Write an image; the extension decides the format. The file appears whole or not at all.

    Arguments and errors as of `encode_photo`; also a FileError where the file cannot be written
    (no such folder, full disk). An existing file is replaced.
    """
    write_bytes(path, encode_photo(path, rgb, alpha, gray, bits, metadata))


def encode_photo(
    path: str | Path,
    rgb: Tensor,
    alpha: Tensor | None = None,
    gray: bool = False,
    bits: int = 8,
    metadata: Metadata | None = None,
) -> bytes:
    """Returns the bytes of an image file; the extension of `path` decides the format.

    JPEG has quality 95 without chroma subsampling; PNG, TIFF and WebP are lossless. JPEG has no
    alpha, and JPEG and WebP have 8 bits only. What a format cannot hold is left out with a warning,
    since the computation before it is done. `losses` tells it before.

    Args:
        path: name of the file, which is not written.
        rgb: (3, H, W), clipped to [0, 1].
        alpha: (1, H, W), clipped to [0, 1].
        gray: store one channel, the mean of the three.
        bits: 8 or 16 bits a channel.
        metadata: what to take over from another file.

    Raises:
        ValueError: unknown extension, wrong shape, or values that are not finite.
        ImageError: the image is too large for the format.
    """
    kind, metadata = output_format(path), metadata or Metadata()
    if (
        rgb.ndim != 3
        or rgb.shape[0] != 3
        or (alpha is not None and alpha.shape != (1, *rgb.shape[1:]))
    ):
        shapes = f"rgb {tuple(rgb.shape)}" + (
            "" if alpha is None else f", alpha {tuple(alpha.shape)}"
        )
        raise ValueError(
            f"{path}: expected rgb (3, H, W) and alpha (1, H, W) of the same size, got {shapes};"
            " give these shapes"
        )
    if bits not in (8, 16):
        raise ValueError(f"{path}: bits must be 8 or 16, got {bits}")
    for loss in losses(path, alpha is not None, bits, metadata):
        warnings.warn(f"{path}: {loss}", stacklevel=2)
    alpha = None if kind == "JPEG" else alpha
    bits = 8 if kind in ("JPEG", "WebP") else bits
    pixels = _levels(path, rgb, alpha, gray, bits)
    require_writable(path, *pixels.shape[:2])
    try:
        return _encode(kind, pixels, fitted(kind, metadata))
    except (OSError, ValueError, struct.error) as error:
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ImageError(
            f"{path}: {size} pixels cannot be encoded as {kind} ({error}); write .png or .tif"
        ) from error


def _levels(
    path: str | Path, rgb: Tensor, alpha: Tensor | None, gray: bool, bits: int
) -> np.ndarray:
    """(H, W, C) uint8 or uint16. ValueError if any value is not finite."""
    colours = rgb.detach().float().mean(0, keepdim=True) if gray else rgb.detach().float()
    planes = list(colours)
    planes += [] if alpha is None else [alpha.detach().float().to(colours.device)[0]]
    pixels = np.empty((*rgb.shape[1:], len(planes)), np.uint8 if bits == 8 else np.uint16)
    for channel, plane in enumerate(planes):  # one by one: a third of the memory
        if not plane.isfinite().all():
            raise ValueError(
                f"{path}: the image has values that are not finite (NaN or infinity); replace them,"
                " or compute it in float32"
            )
        pixels[..., channel] = plane.clamp(0, 1).mul_(2**bits - 1).round_().cpu().numpy()
    return pixels


def fitted(kind: str, metadata: Metadata) -> Metadata:
    """Metadata without what is too large for a format or unknown to it; of EXIF, a maker's note
    goes first.
    """
    metadata = metadata if kind == "PNG" else metadata._replace(text=())
    if kind != "JPEG":
        return metadata
    exif, xmp = metadata.exif, metadata.xmp
    if exif is not None and len(exif) > _JPEG_SEGMENT:
        parsed = _parsed(exif)
        parsed.get_ifd(_EXIF_IFD).pop(_MAKER_NOTE, None)
        exif = parsed.tobytes().removeprefix(b"Exif\0\0")
        exif = exif if len(exif) <= _JPEG_SEGMENT else None
    if xmp is not None and len(xmp) > _JPEG_SEGMENT:
        xmp = None
    return metadata._replace(exif=exif, xmp=xmp)


def _parsed(exif: bytes) -> Image.Exif:
    parsed = Image.Exif()
    parsed.load(b"Exif\0\0" + exif)
    return parsed


def _encode(kind: str, pixels: np.ndarray, metadata: Metadata) -> bytes:
    """(H, W, C) uint8 or uint16, C = 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha, as the bytes of
    a file.
    """
    if kind == "PNG":
        return _encode_png(pixels, metadata)
    if kind == "TIFF":
        return _encode_tiff(pixels, metadata)
    options: dict[str, object] = {"icc_profile": metadata.icc, "xmp": metadata.xmp}
    options |= {} if metadata.exif is None else {"exif": b"Exif\0\0" + metadata.exif}
    options = {name: value for name, value in options.items() if value is not None}
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
        options |= {} if metadata.dpi is None else {"dpi": tuple(map(round, metadata.dpi))}
    else:
        options |= {"lossless": True, "exact": True}
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def _encode_png(pixels: np.ndarray, metadata: Metadata) -> bytes:
    if pixels.dtype == np.uint16:
        data = encode_png16(pixels)
    else:
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
        data = buffer.getvalue()
    chunks = []
    if metadata.icc is not None:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi is not None:
        per_metre = [round(value / 0.0254) for value in metadata.dpi]
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if metadata.exif is not None:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp is not None:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    for key, value in metadata.text:
        keyword = key.encode("latin-1", "replace")[:79]
        chunks.append((b"iTXt", keyword + b"\0\0\0\0\0" + value.encode("utf-8", "replace")))
    added = b"".join(png_chunk(name, body) for name, body in chunks)
    return data[:_IHDR_END] + added + data[_IHDR_END:] if added else data


def _encode_tiff(pixels: np.ndarray, metadata: Metadata) -> bytes:
    channels = pixels.shape[2]
    exif = Image.Exif() if metadata.exif is None else _parsed(metadata.exif)
    directories = {tag: exif.get_ifd(tag) for tag in (_EXIF_IFD, _GPS_IFD)}
    # tifffile writes no pointer to a directory: a neighbour of its number keeps the place
    extra = [(tag - 1, "I", 1, 0, True) for tag, entries in directories.items() if entries]
    for tag, value in exif.items():
        if tag in (271, 272, 315, 316, 33432) and isinstance(value, str):
            # as UTF-8, since tifffile takes text for ASCII
            extra.append((tag, "s", 0, value.encode("utf-8"), True))
    if metadata.xmp is not None:
        extra.append((700, "B", len(metadata.xmp), metadata.xmp, True))
    texts = {270: "description", 305: "software", 306: "datetime"}
    options = {name: exif[tag] for tag, name in texts.items() if isinstance(exif.get(tag), str)}
    options = {
        name: value.encode("utf-8") if name != "datetime" else value
        for name, value in options.items()
        if name != "datetime" or len(value) == 19
    }
    if metadata.dpi is not None:
        options |= {"resolution": metadata.dpi, "resolutionunit": "INCH"}
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels[..., 0] if channels == 1 else pixels,
        byteorder="<",
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        iccprofile=metadata.icc,
        extratags=extra,
        metadata=None,
        **options,
    )
    return _with_directories(buffer, {tag: d for tag, d in directories.items() if d})


def _with_directories(buffer: io.BytesIO, directories: dict[int, dict]) -> bytes:
    """A TIFF file with directories of EXIF and GPS behind its pixels, where its tags point to.

    tifffile writes no such directories, and Pillow no 16-bit colour.
    """
    for tag, entries in directories.items():
        buffer.seek(0)
        with tifffile.TiffFile(buffer) as tiff:
            kept = tiff.pages.first.tags[tag - 1]
            code_at, place = kept.offset, kept.valueoffset
            assert not tiff.is_bigtiff, "tifffile takes BigTIFF from 4 GB on"
        end = buffer.seek(0, os.SEEK_END)
        offset = end + end % 2
        directory = TiffImagePlugin.ImageFileDirectory_v2(ifh=b"II*\0\0\0\0\0", group=tag)
        for key, value in entries.items():
            directory[key] = value
        buffer.write(bytes(offset - end) + directory.tobytes(offset))
        buffer.seek(place)
        buffer.write(struct.pack("<I", offset))
        buffer.seek(code_at)
        buffer.write(struct.pack("<H", tag))
    return buffer.getvalue()
