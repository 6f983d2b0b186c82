"""Shards give back what went in.

What is damaged or points elsewhere is refused; a killed command
goes on.
"""

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_mimdit import cli
from lit_mimdit.data.decoders import decode
from lit_mimdit.data.image_io import ImageError, encode_png16, read_rgb
from lit_mimdit.data.layouts import read_layout
from lit_mimdit.data.pairs import PairDataset
from lit_mimdit.data.shards.manifest import sha256
from lit_mimdit.data.shards.source import ShardSource
from lit_mimdit.data.shards.store import open_store
from lit_mimdit.data.shards.write import shard
from lit_mimdit.data.sources import FolderSource
from lit_mimdit.data.tiles import boxes


@pytest.fixture(scope="module")
def folder(data_root) -> FolderSource:
    return FolderSource(read_layout("foundir", data_root, meta="train.txt").pairs)


def same(one: tuple, other: tuple) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def copy_of(shard_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shard_root, tmp_path / "copy"))


@pytest.mark.parametrize(
    "height, width, tile, overlap",
    [(48, 48, 40, 8), (100, 37, 40, 0), (40, 40, 40, 39), (1080, 1920, 512, 64)],
)
def test_tiles_cover_every_pixel_and_share_the_overlap(height, width, tile, overlap):
    seen = np.zeros((height, width), int)
    for top, left, rows, columns in boxes(height, width, tile, overlap):
        assert (rows, columns) == (min(tile, height), min(tile, width))
        seen[top : top + rows, left : left + columns] += 1
    assert seen.min() >= 1 and seen.shape == (height, width)
    lefts = sorted({box.left for box in boxes(height, width, tile, overlap)})
    assert all(a + tile - b >= overlap for a, b in zip(lefts, lefts[1:], strict=False))


def test_whole_images_and_middle_crops_are_those_of_the_folder(shard_root, folder):
    source, place = (
        ShardSource(str(shard_root)),
        {pair.id: number for number, pair in enumerate(folder.pairs)},
    )
    assert len(source) == len(folder) == 10 and len(source.manifest.shards) == 4
    for index in range(10):
        about = source.about(index)
        other = place[about.id]
        assert about.degradation == folder.about(other).degradation
        for crop in (None, 31, 48):
            assert same(source.read(index, crop, None), folder.read(other, crop, None))


@pytest.mark.usefixtures("processes")
def test_shards_of_whole_images_give_the_training_samples_of_the_folder(
    data_root, folder, tmp_path
):
    shard(data_root, tmp_path / "s", meta=Path("train.txt"), shard_pairs=4, workers=2)
    source, place = (
        ShardSource(str(tmp_path / "s")),
        {pair.id: number for number, pair in enumerate(folder.pairs)},
    )
    for index in range(10):
        draws = [np.random.default_rng(index) for _ in range(2)]
        assert same(
            source.read(index, 20, draws[0]),
            folder.read(place[source.about(index).id], 20, draws[1]),
        )
        assert draws[0].integers(2**40) == draws[1].integers(2**40), "as many numbers drawn"


def test_drawn_crops_lie_in_all_tiles(shard_root):
    source = ShardSource(str(shard_root))
    whole = source.read(0, None, None)[1]
    places = set()
    for seed in range(40):
        crop = source.read(0, 40, np.random.default_rng(seed))[1]
        places |= {
            (y, x)
            for y in (0, 8)
            for x in (0, 8)
            if np.array_equal(whole[y : y + 40, x : x + 40], crop)
        }
    assert places == {(0, 0), (0, 8), (8, 0), (8, 8)}


def test_webdataset_reads_them_too(shard_root):
    import webdataset

    first = next(
        iter(webdataset.WebDataset(str(shard_root / "shard-000000.tar"), shardshuffle=False))
    )
    assert {"lq.webp", "gt.webp", "json"} <= first.keys() and json.loads(first["json"])[
        "id"
    ].startswith("train/")


def test_a_run_that_was_killed_goes_on_and_makes_the_same_bytes(data_root, shard_root, tmp_path):
    copy = copy_of(shard_root, tmp_path)
    for name in (
        "manifest.json",
        ".shard-000001.done",
        "shard-000002.npz",
    ):  # as if killed in the second shard and behind the third
        (copy / name).unlink()
    (copy / ".shard-000001.tar.1234.part").write_bytes(b"half")
    kept = (copy / "shard-000000.tar").stat().st_mtime_ns
    again = {"meta": Path("train.txt"), "tile": 40, "overlap": 8, "shard_pairs": 3, "workers": 1}
    shard(data_root, copy, **again)
    assert (copy / "shard-000000.tar").stat().st_mtime_ns == kept and not list(copy.glob(".*.part"))
    assert json.loads((copy / "manifest.json").read_text()) == json.loads(
        (shard_root / "manifest.json").read_text()
    )
    with pytest.raises(ValueError, match="other settings \\(overlap differ\\)"):
        shard(data_root, copy, **(again | {"overlap": 4}))


def test_broken_pairs_are_left_out_and_listed(data_root, tmp_path):
    root = Path(shutil.copytree(data_root, tmp_path / "data"))
    broken = sorted((root / "train" / "01Blur" / "LQ").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match="1 of 10 pairs cannot be used, more than max_broken 0.01"):
        shard(root, tmp_path / "no", meta=Path("train.txt"), workers=1)
    shard(root, tmp_path / "s", meta=Path("train.txt"), workers=1, max_broken=0.1)
    assert len(ShardSource(str(tmp_path / "s"))) == 9
    assert "train/01Blur/0001" in (tmp_path / "s" / "quarantine.csv").read_text()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"codec": "jpeg"}, "declare its quality"),
        ({"codec": "png", "quality": 9}, "has no quality"),
        ({"codec": "copy", "tile": 32}, "cannot cut tiles"),
        ({"overlap": 3}, "set tile as well"),
        ({"tile": 32, "overlap": 32}, "smaller than the tile"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_impossible_settings(data_root, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        shard(data_root, tmp_path / "s", meta=Path("train.txt"), **wrong)


@pytest.mark.parametrize(
    "name", ["../shard-000000.tar", "/etc/passwd", "a/b.tar", ".hidden", "..", 7]
)
def test_names_that_lead_outside_are_refused(shard_root, tmp_path, name):
    copy = copy_of(shard_root, tmp_path)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["shards"][0]["name"] = name
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="refused the file name"):
        ShardSource(str(copy))


@pytest.mark.parametrize("offset", [-512, 10**12])
def test_an_index_that_points_outside_its_shard_is_refused(shard_root, tmp_path, offset):
    copy = copy_of(shard_root, tmp_path)
    source = ShardSource(str(copy))
    index = source._index(0)
    index.spans[0, 0, 0] = offset
    (copy / "shard-000000.npz").write_bytes(index.dump())
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["shards"][0]["index_sha256"] = sha256(index.dump())
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ImageError, match="refused, it points outside shard-000000.tar"):
        ShardSource(str(copy)).read(1, None, None)


CODECS = [
    ("webp", None, 0),
    ("png", None, 0),
    ("copy", None, 0),
    ("jpeg", 95, 12),
    ("webp", 90, 40),
]  # and the largest error


@pytest.mark.parametrize("codec, quality, error", CODECS)
def test_codecs_keep_what_they_declare_and_16_bits_and_orientation(tmp_path, codec, quality, error):
    y, x = np.mgrid[0:40, 0:56]
    smooth = np.stack([4 * x, 6 * y, 255 - 4 * x], axis=2).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # stored lying on its side
    for side in ("LQ", "GT"):
        (tmp_path / "d/01Blur" / side).mkdir(parents=True)
        Image.fromarray(smooth).save(tmp_path / f"d/01Blur/{side}/1.png", exif=exif)
        (tmp_path / f"d/01Blur/{side}/2.png").write_bytes(
            encode_png16(smooth.astype(np.uint16) * 200 + 7)
        )
    shard(tmp_path / "d", tmp_path / "s", codec=codec, quality=quality, workers=1)
    source = ShardSource(str(tmp_path / "s"))
    for index in range(2):
        files = [
            tmp_path / f"d/01Blur/{side}/{source.about(index).id[-1]}.png" for side in ("LQ", "GT")
        ]
        for stored, file in zip(source.read(index, None, None), files, strict=True):
            original = read_rgb(file)
            if (
                quality is not None and original.dtype == np.uint16
            ):  # a declared quality keeps the high bytes
                original = (original >> 8).astype(np.uint8)
            assert stored.dtype == original.dtype and stored.shape == original.shape
            assert np.abs(stored.astype(int) - original).max() <= error


def test_kill_9_in_the_middle_and_the_same_command_again_make_the_same_bytes(processes, tmp_path):
    """Workers are left behind as orphans, as they are when a machine's memory runs out."""
    draw = np.random.default_rng(0)
    for side in ("LQ", "GT"):
        (tmp_path / "d/01Blur" / side).mkdir(parents=True)
        for number in range(40):
            Image.fromarray(draw.integers(0, 256, (120, 160, 3), np.uint8)).save(
                tmp_path / f"d/01Blur/{side}/{number}.png", compress_level=1
            )

    def command(name: str, workers: int) -> list[str]:
        options = {"tile": 64, "overlap": 8, "shard_pairs": 1, "workers": workers}
        return [
            "data",
            "shard",
            str(tmp_path / "d"),
            str(tmp_path / name),
            *(f"--{key}={value}" for key, value in options.items()),
        ]

    def files(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    process = processes.Popen(
        [sys.executable, "-m", "lit_mimdit", *command("killed", 2)],
        stdout=processes.DEVNULL,
        stderr=processes.DEVNULL,
    )
    try:
        while len(list((tmp_path / "killed").glob(".*.done"))) < 3:
            assert process.poll() is None
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    done = len(list((tmp_path / "killed").glob(".*.done")))
    assert 3 <= done < 40 and not (tmp_path / "killed" / "manifest.json").exists()
    assert cli.main(command("killed", 1)) == 0
    assert cli.main(command("whole", 1)) == 0
    assert files("killed") == files("whole") and len(files("whole")) == 3 * 40 + 2


def flip_byte(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)


def test_damage_is_seen_by_its_checksum(shard_root, tmp_path):
    copy = copy_of(shard_root, tmp_path)
    flip_byte(copy / "shard-000001.npz", 200)
    (copy / "shard-000002.tar").unlink()
    offset = int(ShardSource(str(shard_root))._index(0).spans[0, 0, 0])
    flip_byte(copy / "shard-000000.tar", offset + 30)
    source = ShardSource(str(copy))
    for index, message in (
        (0, "checksum of tile 0 differs"),
        (3, "its checksum differs from the manifest's"),
        (6, "No such file"),
    ):
        with pytest.raises(ImageError, match=message):
            source.read(index, None, None)
    assert (
        source.read(1, None, None)[0].shape == (48, 48, 3)
        and source.about(3).id == "shard-000001.tar:0"
    )
    dataset = PairDataset(source, 32, True, "flip", 0, replace=True)
    samples = [dataset[1, index] for index in range(10)]
    assert {fault.id for sample in samples for fault in sample["faults"]} >= {
        source.about(6).id,
        "shard-000001.tar:0",
    }
    assert all(sample["lq"].shape == (3, 32, 32) for sample in samples)
    again = PairDataset(ShardSource(str(copy)), 32, True, "flip", 0, replace=True)
    assert [again[1, index]["id"] for index in range(10)] == [sample["id"] for sample in samples], (
        "the same stand-ins"
    )


def test_600_mutated_shards_give_pixels_or_an_image_error(shard_root, tmp_path):
    """Members and indices with bytes changed or cut; of every second index the checksum is renewed,
    so that its arrays are looked at.
    """
    draw = np.random.default_rng(0)
    source = ShardSource(str(shard_root))
    data = source._members(0, source._index(0), 0, [0, 1])
    index = (shard_root / "shard-000000.npz").read_bytes()
    outcomes = set()
    for number in range(600):
        whole = bytearray(data[number % 2] if number % 3 else index)
        for _ in range(int(draw.integers(1, 5))):
            whole[int(draw.integers(len(whole)))] = int(draw.integers(256))
        mutated = bytes(
            whole[: int(draw.integers(1, len(whole) + 1))] if number % 5 == 0 else whole
        )
        try:
            if number % 3:
                decode("mutated", mutated)
            else:
                shard_entry = source.manifest.shards[0]
                if number % 2:
                    shard_entry = replace(shard_entry, index_sha256=sha256(mutated))
                fresh = ShardSource(str(shard_root))
                fresh.manifest.shards[0] = shard_entry
                fresh.store = _Fake(mutated, fresh.store)
                fresh.read(0, None, None)
            outcomes.add("read")
        except ImageError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


class _Fake:
    """A store that has another index than the one on disk."""

    def __init__(self, index: bytes, store) -> None:
        self.index, self.store, self.place = index, store, store.place

    def get(self, name: str) -> bytes:
        return self.index

    def parts(self, *args) -> list[bytes]:
        return self.store.parts(*args)


def test_s3_without_its_package_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ValueError, match=r'b/f .*boto3 is not.*pip install "boto3>=1.35,<2"$'):
        open_store("s3://b/f").get("manifest.json")
