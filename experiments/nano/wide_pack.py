"""Packs photographs and pairs small enough for a machine that nothing can be downloaded to.

    python experiments/nano/wide_pack.py data/photos -o data/wide_pack \\
        --pairs blur=data/foreign/blur clean=data/foreign/clean polyu=PAIRS/polyu_crops ...

PHOTOS has the folders train and val. A folder of pairs has lq and gt, with files of the same names
but for their endings; a set whose name begins with "clean" says what is kept of clean images.

    OUT/train, OUT/val              photographs, lossy WebP, all reduced to the same longest side
    OUT/pairs/NAME/{lq,gt}          middle parts, lossless WebP

A set has --count pairs, spread evenly, of --side pixels at most; one of less than four has twice
the side. The photographs take what is left of --limit: their longest side is the largest of SIDES
with which they fit. wide_on_gpu.py trains on the pack.
"""

import argparse
import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from lit_mimdit.data.image_io import list_images, read_rgb

SIDES = (1024, 896, 768, 640, 512, 384, 256)  # pixels
QUALITY = 95
MIB = 2**20


def photograph(path: Path) -> Image.Image:
    """A photograph of 8 bits, no larger than the largest of SIDES."""
    pixels = read_rgb(path)
    image = Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8))
    image.thumbnail((SIDES[0],) * 2, Image.Resampling.LANCZOS)
    return image


def encoded(image: Image.Image, side: int) -> bytes:
    """Lossy WebP of an image of at most `side` pixels."""
    small, file = image.copy(), io.BytesIO()
    small.thumbnail((side,) * 2, Image.Resampling.LANCZOS)
    small.save(file, "WEBP", quality=QUALITY, method=2)
    return file.getvalue()


def middle(path: Path, side: int) -> Image.Image:
    """The middle of an image, `side` pixels at most, both sides multiples of 32."""
    pixels = read_rgb(path)
    height, width = (min(n, side) // 32 * 32 for n in pixels.shape[:2])
    top, left = ((n - m) // 2 for n, m in zip(pixels.shape[:2], (height, width), strict=True))
    return Image.fromarray(pixels[top : top + height, left : left + width])


def pack_pairs(source: Path, target: Path, count: int, side: int) -> int:
    """Writes the pairs of one set, and returns how many there are."""
    files = {
        name: {path.stem: path for path in list_images(source / name)} for name in ("lq", "gt")
    }
    stems = sorted(files["lq"].keys() & files["gt"].keys())
    if not stems:
        raise ValueError(f"{source}: no pairs; it must have lq and gt with files of the same names")
    places = np.linspace(0, len(stems) - 1, min(count, len(stems))).round().astype(int)
    chosen = [stems[place] for place in places]
    for name, paths in files.items():
        (target / name).mkdir(parents=True, exist_ok=True)
        for stem in chosen:
            part = middle(paths[stem], side if len(chosen) > 3 else 2 * side)
            part.save(target / name / f"{stem}.webp", lossless=True)
    return len(chosen)


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder with train and val")
    parser.add_argument("-o", "--output", type=Path, default=Path("data/wide_pack"))
    parser.add_argument("--pairs", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--count", type=int, default=12, help="pairs of a set")
    parser.add_argument("--side", type=int, default=256, help="of pairs, pixels")
    parser.add_argument("--limit", type=float, default=30, help="of the whole pack, MiB")
    args = parser.parse_args(arguments)
    shutil.rmtree(args.output, ignore_errors=True)
    for pair in args.pairs:
        name, _, folder = pair.partition("=")
        count = pack_pairs(Path(folder), args.output / "pairs" / name, args.count, args.side)
        print(f"{name}: {count} pairs")
    left = args.limit * MIB - size(args.output)
    photos = {
        f"{split}/{number:03d}_{path.stem}.webp": photograph(path)
        for split in ("train", "val")
        for number, path in enumerate(list_images(args.photos / split))
    }
    for side in SIDES:
        files = {name: encoded(image, side) for name, image in photos.items()}
        total = sum(map(len, files.values()))
        print(f"{len(files)} photographs of {side} px: {total / MIB:.1f} MiB")
        if total <= left:
            break
    else:
        raise SystemExit(f"photographs of {side} px leave no room within {args.limit} MiB")
    for name, content in files.items():
        path = args.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"{args.output}: {size(args.output) / MIB:.1f} MiB")


if __name__ == "__main__":
    main()
