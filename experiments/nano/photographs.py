"""Copies the photographs of photographs.tsv out of unpacked Debian packages into train and val.

    apt-get download PACKAGE=VERSION          # of each package of the table, see data/README.md
    for deb in *.deb; do dpkg -x $deb unpacked/${deb%%_*}-$(echo $deb | cut -d_ -f2); done
    python experiments/nano/photographs.py unpacked -o data/photos

Photographs are taken as they are; JPEG XL, and textures that lie in a zip, are written as PNG. The
table names a member of a zip FILE!MEMBER, and the fourth WebP of a Qt resource file FILE.rcc!3.
"""

import argparse
import csv
import io
import shutil
import zipfile
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

TABLE = Path(__file__).with_name("photographs.tsv")


def find(unpacked: Path, file: str) -> Path:
    """The file under any of the unpacked packages; FileNotFoundError where none has it."""
    for package in sorted(unpacked.iterdir()):
        if (package / file).is_file():
            return package / file
    raise FileNotFoundError(
        f"{file}: no folder in {unpacked} has it; unpack its package there (dpkg -x)"
    )


def webps(data: bytes) -> list[bytes]:
    """Returns all WebP files that lie uncompressed in a file, in their order.

    Each begins with `RIFF`, its length (4 bytes, little end first) and `WEBP` (RFC 9649).
    """
    files, start = [], data.find(b"RIFF")
    while start >= 0:
        end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        if data[start + 8 : start + 12] == b"WEBP":
            files.append(data[start:end])
        else:
            end = start + 4
        start = data.find(b"RIFF", end)
    return files


def write(source: Path, inside: str, target: Path) -> None:
    """Write one photograph; `inside` is its name in a zip, its place in an .rcc, or empty."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".rcc":
        target.write_bytes(webps(source.read_bytes())[int(inside)])
    elif inside:
        with zipfile.ZipFile(source) as archive:
            Image.open(io.BytesIO(archive.read(inside))).convert("RGB").save(target)
    elif source.suffix == ".jxl":
        pixels = imagecodecs.jpegxl_decode(source.read_bytes())
        if pixels.dtype == np.uint16:
            pixels = (pixels >> 8).astype(np.uint8)
        Image.fromarray(pixels[..., :3]).reduce(2).save(target)
    elif source.suffix == target.suffix:
        shutil.copyfile(source, target)
    else:
        Image.open(source).convert("RGB").save(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("unpacked", type=Path, help="folder with one folder for each package")
    parser.add_argument("-o", "--output", type=Path, default=Path("data/photos"))
    args = parser.parse_args()
    with TABLE.open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    for row in rows:
        file, _, inside = row["file"].partition("!")
        write(find(args.unpacked, file), inside, args.output / row["split"] / row["name"])
    print(f"{len(rows)} photographs in {args.output}")


if __name__ == "__main__":
    main()
