"""The sample tree: FoundIR's layout, exact under its seed, there whole or not at all."""

import csv
import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_mimdit.data import photographs, sample_data
from lit_mimdit.data.composition import FOUNDIR_TYPES, degrade
from lit_mimdit.data.degradations import to_uint8
from lit_mimdit.data.sample_data import write_sample_data

pytestmark = pytest.mark.usefixtures("takes_seconds")  # whole data sets
SMALL = {"size": 48, "train_crops": 2, "val_crops": 1, "test_crops": 3}
ONE = {"size": 32, "train_crops": 0, "val_crops": 1, "test_crops": 0, "types": ["06JPEG"]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_sample_data(tmp_path_factory.mktemp("sample") / "tree", **SMALL)


def rows(tree):
    with open(tree / "samples.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(tree):
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("split,crops", [("train", 2), ("val", 1), ("test", 3)])
def test_meta_file_lists_every_pair_of_foundirs_layout(tree, split, crops):
    lines = (tree / f"{split}.txt").read_text().splitlines()
    assert len(lines) == 20 * crops
    listed, ids = set(), []
    for line in lines:
        gt, lq = (Path(path) for path in line.split(", "))
        assert gt.parts[0] == lq.parts[0] == split
        assert gt.parts[1] == lq.parts[1] and gt.parts[1] in FOUNDIR_TYPES
        assert (gt.parts[2], lq.parts[2]) == ("GT", "LQ")
        assert gt.stem == lq.stem and len(gt.stem) == 4
        with Image.open(tree / gt) as clean, Image.open(tree / lq) as degraded:
            assert clean.size == degraded.size == (48, 48) and clean.mode == degraded.mode == "RGB"
            assert degraded.format == ("JPEG" if "JPEG" in gt.parts[1] else "PNG")
        ids.append(int(gt.stem))
        listed |= {gt, lq}
    assert ids == list(range(1, 20 * crops + 1))  # run across the folders
    assert listed == {
        path.relative_to(tree) for path in (tree / split).rglob("*") if path.is_file()
    }


def test_extensions_are_foundirs(tree):
    suffixes = {path.parts[-3]: path.suffix for path in tree.glob("test/*/LQ/*")}
    assert {name for name, suffix in suffixes.items() if suffix == ".JPG"} == {
        "06JPEG",
        "17Lowlight_JPEG",
    }
    assert {name for name, suffix in suffixes.items() if suffix != ".png"} == {
        name for name in FOUNDIR_TYPES if "JPEG" in name
    }
    assert {path.suffix for path in tree.glob("*/*/GT/*")} == {".png"}


def test_splits_use_disjoint_photographs(tree):
    used = {
        split: {row["photograph"] for row in rows(tree) if row["split"] == split}
        for split in photographs.SPLITS
    }
    for split, names in used.items():
        assert names <= {photograph.name for photograph in photographs.of_split(split)}
    assert not (
        used["train"] & used["val"] or used["train"] & used["test"] or used["val"] & used["test"]
    )


def test_every_test_type_has_every_severity(tree):
    for name in FOUNDIR_TYPES:
        assert {
            row["severity"] for row in rows(tree) if row["split"] == "test" and row["type"] == name
        } == {"light", "medium", "heavy"}


def test_table_reproduces_the_images(tree):
    """GT is the resized crop, LQ what `degrade` makes of it with the listed seed, up to the
    rounding to 8 bits before JPEG.
    """
    table = rows(tree)
    assert len(table) == 20 * 6
    for row in table:
        box = tuple(int(row[edge]) for edge in ("left", "top", "right", "bottom"))
        photograph = photographs.load(row["photograph"])
        assert min(box) >= 0 and box[2] <= photograph.shape[1] and box[3] <= photograph.shape[0]
        assert box[2] - box[0] == box[3] - box[1] >= 48
        gt = Image.fromarray(photograph).resize((48, 48), Image.Resampling.LANCZOS, box=box)
        assert np.array_equal(gt, Image.open(tree / row["gt"]))
        depth = photographs.depth(row["photograph"])
        if depth is not None:
            depth = np.asarray(
                Image.fromarray(depth).resize((48, 48), Image.Resampling.BOX, box=box)
            )
        generator = np.random.default_rng(int(row["seed"]))
        lq = degrade(
            np.asarray(gt, np.float32) / 255,
            FOUNDIR_TYPES[row["type"]],
            row["severity"],
            generator,
            depth,
        )
        assert np.array_equal(to_uint8(lq), Image.open(tree / row["lq"]))
    assert len({row["seed"] for row in table}) == len(table)


def test_jpeg_quality_of_the_table_is_the_files(tree):
    for row in rows(tree):
        assert bool(row["jpeg_quality"]) == ("JPEG" in row["type"])
        if row["jpeg_quality"]:
            with Image.open(tree / row["lq"]) as image:
                first_coefficient = image.quantization[0][0]
            quality = int(row["jpeg_quality"])
            # libjpeg: table entry (16 in the standard luminance table) times 5000 / quality
            # percent, for quality < 50.
            assert first_coefficient == min((16 * (5000 // quality) + 50) // 100, 255)


def test_crops_come_in_several_scales(tree):
    sides = {int(row["right"]) - int(row["left"]) for row in rows(tree) if row["split"] == "train"}
    assert min(sides) < 80 and max(sides) > 200


def test_same_seed_same_files(tree, tmp_path):
    assert contents(write_sample_data(tmp_path / "again", **SMALL)) == contents(tree)
    other = contents(
        write_sample_data(
            tmp_path / "other", **{**SMALL, "train_crops": 0, "test_crops": 0}, seed=1
        )
    )
    assert other["val/01Blur/GT/0001.png"] != contents(tree)["val/01Blur/GT/0001.png"]
    assert "train.txt" not in other


def test_some_types_are_a_part_of_all(tree, tmp_path):
    part = contents(
        write_sample_data(tmp_path / "part", types=["12NightRain", "03Blur_JPEG"], **SMALL)
    )
    images = {path: data for path, data in part.items() if "/" in path}
    assert len(images) == 2 * 2 * 6
    whole = contents(tree)
    assert all(whole[path] == data for path, data in images.items())


def test_severities_setting(tmp_path):
    tree = write_sample_data(
        tmp_path / "tree", size=32, train_crops=2, val_crops=0, test_crops=0, severities=("heavy",)
    )
    assert {row["severity"] for row in rows(tree)} == {"heavy"}


def test_readme_has_the_licences(tree):
    text = (tree / "README.txt").read_text()
    assert all(
        photograph.author in text and photograph.licence in text
        for photograph in photographs.PHOTOGRAPHS
    )


def test_existing_folders(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    write_sample_data(folder, **ONE)  # empty: fine
    with pytest.raises(ValueError, match="is not empty: .* --overwrite=true"):
        write_sample_data(folder, **ONE)
    before = contents(folder)
    write_sample_data(folder, **ONE, seed=1, overwrite=True)
    assert contents(folder).keys() == before.keys() and contents(folder) != before

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is no sample tree and --overwrite=true leaves it alone"):
        write_sample_data(mine, **ONE, overwrite=True)
    assert (mine / "thesis.tex").read_text() == "years of work"
    with pytest.raises(ValueError, match="is a file"):
        write_sample_data(mine / "thesis.tex", **ONE)
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "mine"}


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("existing", [False, True])
def test_interrupted_run_changes_nothing(tmp_path, monkeypatch, error, existing):
    folder = tmp_path / "new" / "tree"
    before = contents(write_sample_data(folder, **ONE)) if existing else None
    written = []

    def fail_late(*args, write=sample_data.write_pair):
        if len(written) == 3:
            raise error
        written.append(write(*args))

    monkeypatch.setattr(sample_data, "write_pair", fail_late)
    message = (
        "sample data not written to .*tree: No space left on device"
        if isinstance(error, OSError)
        else None
    )
    with pytest.raises(type(error), match=message):
        write_sample_data(folder, **{**ONE, "val_crops": 5}, seed=1, overwrite=existing)
    assert len(written) == 3
    assert [path.name for path in folder.parent.iterdir()] == (["tree"] if existing else [])
    if existing:
        assert contents(folder) == before


def test_failed_rename_puts_the_old_tree_back(tmp_path, monkeypatch):
    folder = write_sample_data(tmp_path / "tree", **ONE)
    before = contents(folder)

    def refuse(self, target, rename=Path.rename):
        if (
            ".partial-" in self.name
            and Path(target).name == "tree"
            and not self.name.endswith("-replaced")
        ):
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        write_sample_data(folder, **ONE, seed=1, overwrite=True)
    assert contents(folder) == before and [path.name for path in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"types": ["Blur"]}, "unknown type 'Blur': choose from 01Blur, 02Blur_Noise"),
        ({"types": []}, "at least one entry"),
        ({"severities": ()}, "at least one entry"),
        (
            {"severities": ("extreme",)},
            "unknown severity 'extreme': choose from light, medium, heavy",
        ),
        ({"size": 301}, "size is 301: give 16 to 300"),
        ({"size": 0}, "size is 0: give 16 to 300"),
        ({"val_crops": -1}, "val_crops is -1: give 0 or more"),
        ({"train_crops": 0, "val_crops": 0, "test_crops": 0}, "nothing to write"),
        ({"seed": -1}, "seed is -1: give 0 or more"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write_sample_data(tmp_path / "tree", **settings)
    assert not any(tmp_path.iterdir())


def test_own_photographs_make_the_test_split(tmp_path):
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(image).save(photos / "a.png")
    Image.fromarray(image[::-1]).save(photos / "deep" / "b.png")
    tree = write_sample_data(
        tmp_path / "tree", size=32, test_crops=6, types=["05Noise"], photos=photos
    )
    assert not (tree / "train.txt").exists() and not (tree / "val.txt").exists()
    listed = rows(tree)
    assert {row["photograph"] for row in listed} == {"a.png", "deep/b.png"}
    assert [row["severity"] for row in listed].count("heavy") == 2
    row = next(row for row in listed if row["photograph"] == "a.png")
    box = [int(row[edge]) for edge in ("left", "top", "right", "bottom")]
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS, box=box)
    assert np.array_equal(np.asarray(Image.open(tree / row["gt"])), np.asarray(expected))


def test_a_folder_without_photographs_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        with pytest.raises(
            ValueError, match=f"photos is .*{folder}: give a folder with photographs"
        ):
            write_sample_data(tmp_path / "tree", photos=tmp_path / folder)
