"""Stores pixels in a shard, and reads them back.

The content decides how they are read, as for every other file.

docs/results/costs.md says what each codec costs (`python benchmarks/data.py --codecs`).
"""

import io
from typing import Literal

import numpy as np
from PIL import Image

from lit_mimdit.data.image_io import encode_png16

Codec = Literal["webp", "png", "jpeg", "copy"]


def check_codec(codec: Codec, quality: int | None, tile: int | None) -> None:
    """Raises ValueError for a codec and a quality that do not go together."""
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}: give 1 to 100, or null for lossless")
    if codec == "jpeg" and quality is None:
        raise ValueError(
            "codec jpeg loses detail: declare its quality, e.g. --quality 95, or take codec webp,"
            " which is lossless without one"
        )
    if codec in ("png", "copy") and quality is not None:
        raise ValueError(
            f"codec {codec} has no quality (given: {quality}): leave it out, or take codec webp or"
            " jpeg"
        )
    if codec == "copy" and tile is not None:
        raise ValueError(
            f"codec copy keeps the bytes of whole files and cannot cut tiles of {tile}: take codec"
            " webp, or tile null"
        )


def encode(pixels: np.ndarray, codec: Codec, quality: int | None) -> tuple[str, bytes]:
    """(extension, file) of an image (H, W, 3), uint8 or uint16.

    16 bits are kept as PNG whatever the codec, unless a quality is declared; then their high bytes
    are stored.
    """
    if pixels.dtype == np.uint16 and quality is None:
        return "png", encode_png16(pixels)
    image = Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8))
    options = {
        "png": {"compress_level": 1},
        "jpeg": {"quality": quality, "subsampling": 0},
        # method 0: a third of PNG's time to write, and faster to read than what slower methods
        # write
        "webp": (
            {"lossless": True, "method": 0, "quality": 0, "exact": True}
            if quality is None
            else {"quality": quality, "method": 4}
        ),
    }[codec]
    buffer = io.BytesIO()
    image.save(buffer, codec.upper(), **options)
    return {"jpeg": "jpg"}.get(codec, codec), buffer.getvalue()
