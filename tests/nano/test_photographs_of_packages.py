"""experiments/nano/photographs.py: photographs out of what packages keep them in."""

import csv
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "nano"))

import photographs


def webp(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((9, 7, 3), level, np.uint8)).save(file, "WEBP", lossless=True)
    return file.getvalue()


def test_webps_of_a_resource_file_are_taken_in_their_order():
    """Sound is RIFF, too, and lies beside them; so does the bare word."""
    sound = b"RIFF" + (40).to_bytes(4, "little") + b"WAVE" + bytes(36)
    first, second = webp(40), webp(200)
    taken = photographs.webps(b"qres" + first + sound + b"RIFF!" + second + b"\0\0")
    assert taken == [first, second]


@pytest.mark.parametrize(("name", "inside", "level"), [("a.rcc", "1", 200), ("b.zip", "c.png", 90)])
def test_one_photograph_of_a_file_is_written(name, inside, level, tmp_path):
    (tmp_path / "a.rcc").write_bytes(webp(40) + webp(200))
    Image.fromarray(np.full((9, 7, 3), 90, np.uint8)).save(tmp_path / "c.png")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(tmp_path / "c.png", "c.png")
    target = tmp_path / "out" / f"photograph{'.webp' if name == 'a.rcc' else '.png'}"
    photographs.write(tmp_path / name, inside, target)
    assert np.asarray(Image.open(target)).tolist() == np.full((9, 7, 3), level).tolist()


def test_no_photograph_is_in_two_splits():
    """A file of the table is named once, and its name is the only one of its split."""
    with photographs.TABLE.open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    files = [(row["package"], row["file"]) for row in rows]
    names = [row["name"] for row in rows]
    assert len(set(files)) == len(files) and len(set(names)) == len(names)
    assert {row["split"] for row in rows} == {"train", "val"}
