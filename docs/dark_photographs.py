"""Draws photographs beside what `restore` made of them, in pairs, four to a row.

python docs/dark_photographs.py DEGRADED RESTORED --output docs/results/dark_photographs.webp
"""

import argparse
from pathlib import Path

from PIL import Image, ImageOps

from lit_mimdit.data.image_io import list_images, read_rgb

CELL, GAP, COLUMNS = (196, 148), 4, 4  # pixels, pixels, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("degraded", type=Path, help="folder of photographs")
    parser.add_argument("restored", type=Path, help="folder that restore wrote of them")
    parser.add_argument("--output", type=Path, default=Path("docs/results/dark_photographs.webp"))
    args = parser.parse_args()
    photographs = list_images(args.degraded)
    rows = -(-len(photographs) // COLUMNS)
    width, height = 2 * CELL[0] + 3 * GAP, CELL[1] + GAP
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    for number, path in enumerate(photographs):
        x, y = number % COLUMNS * width, number // COLUMNS * height
        pair = path, args.restored / f"{path.stem}.png"
        for place, file in enumerate(pair):
            photograph = Image.fromarray(read_rgb(file))
            thumbnail = ImageOps.fit(photograph, CELL, Image.Resampling.LANCZOS)
            sheet.paste(thumbnail, (x + place * (CELL[0] + GAP), y))
    sheet.save(args.output, quality=80)


if __name__ == "__main__":
    main()
