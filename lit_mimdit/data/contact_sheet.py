"""A picture of a paired data set: one row a degradation, LQ and GT side by side."""

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lit_mimdit.data.fonts import drawable
from lit_mimdit.data.image_io import natural_key
from lit_mimdit.files import write_bytes

# pixels
_CELL = (240, 160)
_GAP = 8
_LABEL = 20
Pixels = np.ndarray | None  # (H, W, 3) uint8 or uint16; None if the image cannot be read


def write_contact_sheet(
    path: Path,
    names: Sequence[tuple[str, str]],
    read: Callable[[int], tuple[Pixels, Pixels]],
    samples: int = 2,
) -> str:
    """Write a PNG with `samples` pairs of every degradation, spread evenly over it.

    Returns what a user must know of its labels, or nothing.

    Args:
        path: file to write
        names: degradation and id of each pair
        read: LQ and GT of the pair of this number
        samples: pairs a degradation
    """
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for number, (degradation, _) in enumerate(names):
        rows[degradation].append(number)
    columns = min(samples, max(map(len, rows.values())))
    row_height = _LABEL + _CELL[1] + _GAP
    sheet = Image.new(
        "RGB", (_GAP + 2 * columns * (_CELL[0] + _GAP), _GAP + len(rows) * row_height), "white"
    )
    draw, coded = ImageDraw.Draw(sheet), 0
    for row, name in enumerate(sorted(rows, key=natural_key)):
        chosen = [
            rows[name][int(i)]
            for i in np.linspace(0, len(rows[name]) - 1, min(columns, len(rows[name])))
        ]
        for column, number in enumerate(chosen):
            id = names[number][1]
            for side, pixels in enumerate(read(number)):
                x, y = _GAP + (2 * column + side) * (_CELL[0] + _GAP), _GAP + row * row_height
                label = f"LQ  {id}" if id.startswith(name) else f"LQ  {name}: {id}"
                shown, font = drawable(label if side == 0 else "GT", 13)
                coded += side == 0 and shown != label
                draw.text((x, y), _shorten(shown, font), "black", font)
                sheet.paste(_thumbnail(pixels), (x, y + _LABEL))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
    return (
        f" ({coded} name(s) as codes: no font here has their letters; one is Noto Sans CJK,"
        " package fonts-noto-cjk)"
        if coded
        else ""
    )


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text without its middle if it is wider than a cell."""
    for keep in range(len(text), 0, -1):
        short = (
            text if keep == len(text) else f"{text[: keep // 2]}...{text[-(keep - keep // 2) :]}"
        )
        if font.getlength(short) <= _CELL[0]:
            return short
    return ""


def _thumbnail(pixels: Pixels) -> Image.Image:
    """An image fitted into a cell of the sheet, gray around it; a red cell if it cannot be read."""
    cell = Image.new("RGB", _CELL, "lightgray")
    if pixels is None:
        cell.paste("firebrick", (0, 0, *_CELL))
        ImageDraw.Draw(cell).text((8, 8), "unreadable", "white", ImageFont.load_default(13))
        return cell
    image = Image.fromarray((pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels)
    image = ImageOps.contain(image, _CELL, Image.Resampling.LANCZOS)
    cell.paste(image, ((_CELL[0] - image.width) // 2, (_CELL[1] - image.height) // 2))
    return cell
