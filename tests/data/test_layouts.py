"""Miniature trees with the folder names and quirks of the released data sets.

Pairing only looks at names, so files are empty.
"""

import os
from pathlib import Path

import pytest

from lit_mimdit.data.layouts import (
    Pair,
    PairList,
    Problem,
    detect_layout,
    read_layout,
    require_complete,
)


def plant(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(found: PairList) -> list[tuple[str, str, str, str]]:
    """(id, degradation, LQ, GT) of each pair, with paths relative to the root."""
    return [
        (
            p.id,
            p.degradation,
            p.lq.relative_to(found.root).as_posix(),
            p.gt.relative_to(found.root).as_posix(),
        )
        for p in found.pairs
    ]


def problems(found: PairList) -> list[tuple[str, str]]:
    return [
        (problem.kind, problem.path.relative_to(found.root).as_posix())
        for problem in found.problems
    ]


# The types of the FoundIR test set, and the extensions (GT, LQ) of their files as released.
FOUNDIR_TYPES = {
    **dict.fromkeys(
        ["01Blur", "02Blur_Noise", "10Rain", "11Raindrop", "12NightRain", "18Lowlight_Blur_Noise"],
        [("png", "png")],
    ),
    **dict.fromkeys(
        ["03Blur_JPEG", "04Blur_Noise_JPEG", "07Noise_JPEG", "19Lowlight_Blur_JPEG"],
        [("png", "jpg")],
    ),
    "20Lowlight_Noise_JPEG": [("png", "jpg")],
    **dict.fromkeys(["06JPEG", "17Lowlight_JPEG"], [("png", "JPG")]),
    **dict.fromkeys(
        ["05Noise", "08Haze", "09Lowlight_Haze", "13Rain_Haze", "16Lowlight_Noise"],
        [("jpg", "jpg")],
    ),
    "14Lowlight": [("JPG", "JPG")],
    "15Lowlight_Blur": [("png", "png"), ("jpg", "jpg")],
}


def foundir(root: Path) -> tuple[Path, list[tuple[str, str, str, str]]]:
    """A FoundIR test tree with all 20 types, and its pairs: ids run across the folders."""
    expected, number = [], 0
    for name, extensions in sorted(FOUNDIR_TYPES.items()):
        for gt, lq in extensions * 2:
            number += 1
            expected.append(
                (
                    f"{name}/{number:04d}",
                    name,
                    f"{name}/LQ/{number:04d}.{lq}",
                    f"{name}/GT/{number:04d}.{gt}",
                )
            )
            plant(root, *expected[-1][2:])
    return root, expected


# --- FoundIR --------------------------------------------------------------------------------------


def test_foundir_test_set_by_its_folders(tmp_path):
    root, expected = foundir(tmp_path)
    found = read_layout("foundir", root)
    assert names(found) == expected and len(found) == 42
    assert require_complete(found) is found.pairs
    assert read_layout("auto", root) == found and detect_layout(root) == "foundir"


def test_pairs_are_made_by_name_not_by_position(tmp_path):
    """One file missing on each side: by position, every pair between them would be wrong."""
    plant(
        tmp_path,
        *(f"01Blur/GT/{i:04d}.png" for i in (1, 2, 3, 4)),
        *(f"01Blur/LQ/{i:04d}.png" for i in (2, 3, 4, 5)),
    )
    found = read_layout("foundir", tmp_path)
    assert [name[0] for name in names(found)] == ["01Blur/0002", "01Blur/0003", "01Blur/0004"]
    assert all(pair.lq.stem == pair.gt.stem for pair in found.pairs)
    assert problems(found) == [
        ("unpaired GT", "01Blur/GT/0001.png"),
        ("unpaired LQ", "01Blur/LQ/0005.png"),
    ]


def test_a_name_that_occurs_twice_makes_no_pair(tmp_path):
    plant(
        tmp_path,
        "01Blur/GT/0001.png",
        "01Blur/LQ/0001.png",
        "01Blur/LQ/0001.JPG",
        "01Blur/GT/0002.png",
        "01Blur/LQ/0002.png",
    )
    found = read_layout("foundir", tmp_path)
    assert [name[0] for name in names(found)] == ["01Blur/0002"]
    assert problems(found) == [
        ("duplicate", "01Blur/LQ/0001.JPG"),
        ("duplicate", "01Blur/LQ/0001.png"),
    ]
    assert "0001.JPG, 0001.png" in str(found.problems[0])


def test_hidden_and_other_files_are_no_images(tmp_path):
    plant(
        tmp_path,
        "01Blur/GT/1.png",
        "01Blur/LQ/1.png",
        "01Blur/LQ/._1.png",
        "01Blur/LQ/Thumbs.db",
        ".cache/LQ/1.png",
        "notes/a.png",
    )
    found = read_layout("foundir", tmp_path)
    assert len(found) == 1 and not found.problems


def test_foundir_order_is_natural(tmp_path):
    plant(
        tmp_path,
        *(
            f"{name}/{side}/{i}.png"
            for name in ("10Rain", "9Haze")
            for side in ("GT", "LQ")
            for i in (10, 9, 100)
        ),
    )
    assert [name[0] for name in names(read_layout("foundir", tmp_path))] == [
        *("9Haze/9", "9Haze/10", "9Haze/100"),
        *("10Rain/9", "10Rain/10", "10Rain/100"),
    ]


def test_side_folders_in_any_case_and_a_single_type(tmp_path):
    root = plant(tmp_path / "07{JPEG}", "gt/1.png", "lq/1.JPG")
    assert names(read_layout("auto", root)) == [("07{JPEG}/1", "07{JPEG}", "lq/1.JPG", "gt/1.png")]


def test_types_below_folders_of_splits(tmp_path):
    plant(
        tmp_path,
        *(f"{split}/01Blur/{side}/1.png" for split in ("train", "val") for side in ("GT", "LQ")),
        "train/05Noise/GT/2.png",
    )
    found = read_layout("auto", tmp_path)
    assert names(found) == [
        (f"{split}/01Blur/1", "01Blur", f"{split}/01Blur/LQ/1.png", f"{split}/01Blur/GT/1.png")
        for split in ("train", "val")
    ]
    assert (
        problems(found) == [("unpaired GT", "train/05Noise/GT/2.png")]
        and found.problems[0].degradation == "05Noise"
    )


def test_a_type_without_its_gt_folder_is_reported(tmp_path):
    plant(tmp_path, "01Blur/GT/1.png", "01Blur/LQ/1.png", "02Blur_Noise/LQ/2.png")
    assert problems(read_layout("auto", tmp_path)) == [("unpaired LQ", "02Blur_Noise/LQ/2.png")]


# --- FoundIR's meta file --------------------------------------------------------------------------


def test_meta_file_of_the_test_set(tmp_path):
    root, expected = foundir(tmp_path)
    (root / "meta.txt").write_text("".join(f"{gt}, {lq}\n" for _, _, lq, gt in reversed(expected)))
    assert names(read_layout("foundir", root, meta="meta.txt")) == expected
    (root / "meta.txt").write_text(f"{expected[3][3]}, {expected[3][2]}")
    assert names(read_layout("auto", root, meta=root / "meta.txt")) == expected[3:4], (
        "the meta file says which pairs are used"
    )


def test_meta_file_of_a_training_tree_with_unknown_folders(tmp_path):
    """The folder of the LQ file names the degradation; one GT may serve several LQ; names may
    differ.
    """
    plant(
        tmp_path,
        "clean/a.png",
        "clean/b.png",
        "bad/Rain/a_1.jpg",
        "bad/Rain/a_2.jpg",
        "bad/Haze/b.jpg",
    )
    (tmp_path / "m.txt").write_text(
        "clean/a.png, bad/Rain/a_2.jpg\nclean/a.png, bad/Rain/a_1.jpg\nclean/b.png,"
        " bad/Haze/b.jpg\n"
    )
    assert names(read_layout("auto", tmp_path, meta="m.txt")) == [
        ("bad/Haze/b", "Haze", "bad/Haze/b.jpg", "clean/b.png"),
        ("bad/Rain/a_1", "Rain", "bad/Rain/a_1.jpg", "clean/a.png"),
        ("bad/Rain/a_2", "Rain", "bad/Rain/a_2.jpg", "clean/a.png"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff01Blur/GT/1.png, 01Blur/LQ/1.png\r\n\r\n01Blur/GT/2.png, 01Blur/LQ/2.JPG\r\n",
        "01Blur/GT/1.png,01Blur/LQ/1.png\n  \n./01Blur/GT/2.png ,  01Blur//LQ/2.JPG",
    ],
)
def test_meta_file_with_bom_crlf_blank_lines_and_loose_spaces(tmp_path, text):
    plant(tmp_path, "01Blur/GT/1.png", "01Blur/LQ/1.png", "01Blur/GT/2.png", "01Blur/LQ/2.JPG")
    (tmp_path / "m.txt").write_bytes(text.encode())
    assert names(read_layout("foundir", tmp_path, meta="m.txt")) == [
        ("01Blur/1", "01Blur", "01Blur/LQ/1.png", "01Blur/GT/1.png"),
        ("01Blur/2", "01Blur", "01Blur/LQ/2.JPG", "01Blur/GT/2.png"),
    ]


def test_files_named_in_the_meta_file_that_are_missing_or_named_twice(tmp_path):
    plant(tmp_path, "01Blur/GT/1.png", "01Blur/LQ/1.png", "01Blur/LQ/1.jpg", "01Blur/GT/2.png")
    lines = [
        "GT/1.png, LQ/1.png",
        "GT/2.png, LQ/2.png",
        "GT/1.png, LQ/1.jpg",
        "GT/no/3.png, LQ/1.PNG",
    ]
    (tmp_path / "m.txt").write_text(
        "".join(f"01Blur/{line.replace(', ', ', 01Blur/')}\n" for line in lines)
    )
    found = read_layout("foundir", tmp_path, meta="m.txt")
    assert [name[0] for name in names(found)] == ["01Blur/1"]
    assert problems(found) == [
        ("missing", "01Blur/GT/no/3.png"),
        ("duplicate", "01Blur/LQ/1.jpg"),
        ("missing", "01Blur/LQ/1.PNG"),
        ("duplicate", "01Blur/LQ/1.PNG"),
        ("missing", "01Blur/LQ/2.png"),
    ]
    assert "m.txt, line 3: 01Blur/1 is in line 1 already" in str(found.problems[1])


@pytest.mark.parametrize(
    "path",
    ["../outside.png", "/etc/passwd", "01Blur/../../outside.png", "01Blur/LQ/../../../x.png", ".."],
)
@pytest.mark.parametrize("side", ["GT", "LQ"])
def test_paths_that_lead_out_of_the_root_are_refused(tmp_path, path, side):
    root = plant(tmp_path / "root", "01Blur/GT/1.png", "01Blur/LQ/1.png")
    plant(tmp_path, "outside.png", "x.png")
    both = (path, "01Blur/LQ/1.png") if side == "GT" else ("01Blur/GT/1.png", path)
    (root / "m.txt").write_text(f"01Blur/GT/1.png, 01Blur/LQ/1.png\n{both[0]}, {both[1]}\n")
    with pytest.raises(ValueError, match=r"m\.txt, line 2: .* is outside the root"):
        read_layout("foundir", root, meta="m.txt")


def test_dots_that_stay_inside_are_fine(tmp_path):
    plant(tmp_path, "01Blur/GT/1.png", "01Blur/LQ/1.png")
    (tmp_path / "m.txt").write_text("01Blur/LQ/../GT/1.png, 01Blur/LQ/1.png")
    assert len(read_layout("foundir", tmp_path, meta="m.txt")) == 1


@pytest.mark.parametrize("line", ["only-one.png", "a.png, b.png, c.png", "a.png,", "a.png b.png"])
def test_a_line_that_is_no_pair_is_named(tmp_path, line):
    (tmp_path / "m.txt").write_text(f"\n{line}\n")
    with pytest.raises(ValueError, match=r"m\.txt, line 2: expected 'GT-path, LQ-path'"):
        read_layout("foundir", tmp_path, meta="m.txt")


def test_a_meta_file_that_cannot_be_read(tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    for name, reason in [
        ("no.txt", "No such file"),
        ("image.png", "not UTF-8"),
        (".", "directory"),
    ]:
        with pytest.raises(ValueError, match=f"meta file cannot be read: .*{reason}"):
            read_layout("foundir", tmp_path, meta=name)


def test_each_folder_of_a_meta_file_is_listed_once(tmp_path, monkeypatch):
    """A look at every single file would take hours for a million pairs on a network disk."""
    plant(tmp_path, *(f"01Blur/{side}/{i}.png" for side in ("GT", "LQ") for i in range(50)))
    (tmp_path / "m.txt").write_text(
        "".join(f"01Blur/GT/{i}.png, 01Blur/LQ/{i}.png\n" for i in range(50))
    )
    listed, scandir = [], os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda folder: listed.append(Path(folder)) or scandir(folder)
    )
    assert len(read_layout("foundir", tmp_path, meta="m.txt")) == 50
    assert sorted(listed) == [tmp_path / "01Blur/GT", tmp_path / "01Blur/LQ"]


# --- the four benchmarks --------------------------------------------------------------------------


def test_4krd(tmp_path):
    plant(
        tmp_path,
        *(
            f"VID_{v}/{side}/{i:05d}.jpg"
            for v in ("002", "010")
            for side in ("sharp", "blurry")
            for i in (2, 1)
        ),
    )
    found = read_layout("auto", tmp_path)
    assert found.layout == "4krd" and not found.problems
    assert names(found) == [
        (f"VID_{v}/{i:05d}", "Blur", f"VID_{v}/blurry/{i:05d}.jpg", f"VID_{v}/sharp/{i:05d}.jpg")
        for v in ("002", "010")
        for i in (1, 2)
    ]


def test_4krd_frame_list(tmp_path):
    plant(
        tmp_path,
        *(f"VID_001/{side}/{i:05d}.jpg" for side in ("sharp", "blurry") for i in range(5)),
        "VID_002/blurry/00000.jpg",
    )
    (tmp_path / "frames.txt").write_text(
        "VID_001/00003\r\n\nVID_001/blurry/00001.jpg\nVID_001/00077\nVID_009/00000\nVID_002/00000\n"
    )
    found = read_layout("4krd", tmp_path, frames=tmp_path / "frames.txt")
    assert [name[0] for name in names(found)] == ["VID_001/00001", "VID_001/00003"]
    assert problems(found) == [
        ("missing", "VID_001/00077"),
        ("unpaired LQ", "VID_002/blurry/00000.jpg"),
        ("missing", "VID_009/00000"),
    ]
    plant(
        tmp_path,
        *(
            f"deeper/{part}/VID_001/{side}/00004.jpg"
            for part in ("train", "test")
            for side in ("sharp", "blurry")
        ),
    )
    (tmp_path / "frames.txt").write_text("test/VID_001/00004.jpg\n")
    deeper = read_layout("4krd", tmp_path / "deeper", frames=tmp_path / "frames.txt")
    assert [pair.id for pair in deeper.pairs] == ["test/VID_001/00004"]
    (tmp_path / "frames.txt").write_text("00003\n")
    with pytest.raises(ValueError, match=r"frames\.txt, line 1: expected 'VID_001/00001'"):
        read_layout("4krd", tmp_path, frames=tmp_path / "frames.txt")
    with pytest.raises(ValueError, match="frame list cannot be read: No such file"):
        read_layout("4krd", tmp_path, frames=tmp_path / "no.txt")


@pytest.mark.parametrize("middle", ["validation", "val"])
def test_realrain1k(tmp_path, middle):
    parts = {"train": [1, 2, 10], middle: [3], "test": [4, 20]}
    for density in "HL":
        for part, numbers in parts.items():
            plant(
                tmp_path,
                *(
                    f"RealRain-1k-{density}/{part}/{side}/{i}.png"
                    for side in ("input", "target")
                    for i in numbers
                ),
            )
    assert detect_layout(tmp_path) == "realrain1k"
    for split, part in [("train", "train"), ("val", middle), ("test", "test")]:
        found = read_layout("realrain1k", tmp_path, split=split)
        assert not found.problems
        assert names(found) == [
            (
                f"Rain-{d}/{split}/{i}",
                f"Rain-{d}",
                f"RealRain-1k-{d}/{part}/input/{i}.png",
                f"RealRain-1k-{d}/{part}/target/{i}.png",
            )
            for d in "HL"
            for i in parts[part]
        ]
    assert read_layout("realrain1k", tmp_path) == read_layout("realrain1k", tmp_path, split="test")
    assert {pair.degradation for pair in read_layout("auto", tmp_path / "RealRain-1k-L").pairs} == {
        "Rain-L"
    }
    (tmp_path / "RealRain-1k-H").rename(tmp_path / "realrain-1K-h")
    assert len(read_layout("auto", tmp_path)) == 4
    with pytest.raises(ValueError, match="unknown split 'dev'; choose one of train, val, test"):
        read_layout("realrain1k", tmp_path, split="dev")


def test_realrain1k_without_the_folders(tmp_path):
    with pytest.raises(ValueError, match="no folder RealRain-1k-H or RealRain-1k-L"):
        read_layout("realrain1k", tmp_path)
    plant(tmp_path, "RealRain-1k-H/train/input/1.png", "RealRain-1k-H/train/target/1.png")
    with pytest.raises(ValueError, match="no folder validation or val for split 'val'"):
        read_layout("realrain1k", tmp_path, split="val")


@pytest.mark.parametrize("below", ["", "data/"])
@pytest.mark.parametrize(
    "hazy", ["IMG_8583_{}.png", "IMG_8583_{}.jpg", "IMG_8583_RGB_{}.jpg", "IMG_8583_hazy_{}.jpg"]
)
def test_hazerd(tmp_path, below, hazy):
    ranges = [50, 100, 1000]
    plant(
        tmp_path,
        f"{below}img/IMG_8583_RGB.jpg",
        f"{below}depth/IMG_8583_depth.mat",
        *(f"{below}simu/{hazy.format(r)}" for r in ranges),
    )
    found = read_layout("auto", tmp_path)
    assert found.layout == "hazerd" and not found.problems
    files = [hazy.format(r) for r in ranges]
    assert names(found) == [
        (Path(name).stem, "Haze", f"{below}simu/{name}", f"{below}img/IMG_8583_RGB.jpg")
        for name in files
    ]


def test_hazerd_scenes_are_not_confused_and_the_rest_is_listed(tmp_path):
    plant(tmp_path, "img/A_B_RGB.png", "img/A_B_C_RGB.png", "img/plain.png", "img/IMG_1_RGB.jpg")
    plant(
        tmp_path, "simu/A_B_C_50.png", "simu/A_B_50.png", "simu/plain_50.png", "simu/IMG_2_50.png"
    )
    found = read_layout("hazerd", tmp_path)
    assert {pair.id: pair.gt.name for pair in found.pairs} == {
        "A_B_50": "A_B_RGB.png",
        "A_B_C_50": "A_B_C_RGB.png",
        "plain_50": "plain.png",
    }
    assert problems(found) == [
        ("unpaired GT", "img/IMG_1_RGB.jpg"),
        ("unpaired LQ", "simu/IMG_2_50.png"),
    ]
    plant(tmp_path, "img/plain.jpg")
    assert ("duplicate", "img/plain.png") in problems(read_layout("hazerd", tmp_path))


def test_hazerd_before_its_script_was_run(tmp_path):
    plant(tmp_path, "data/img/IMG_1_RGB.jpg")
    with pytest.raises(ValueError, match="make the hazy images with the script"):
        read_layout("hazerd", tmp_path)


def test_uhdll(tmp_path):
    files = {"training_set": [2, 10], "testing_set": [1]}
    for part, numbers in files.items():
        plant(
            tmp_path,
            *(f"{part}/{side}/{n}_UHD_LL.JPG" for side in ("gt", "input") for n in numbers),
        )
    assert detect_layout(tmp_path) == "uhdll"
    for split, part in [("train", "training_set"), ("test", "testing_set")]:
        assert names(read_layout("uhdll", tmp_path, split=split)) == [
            (
                f"{split}/{n}_UHD_LL",
                "Lowlight",
                f"{part}/input/{n}_UHD_LL.JPG",
                f"{part}/gt/{n}_UHD_LL.JPG",
            )
            for n in files[part]
        ]
    assert read_layout("uhdll", tmp_path) == read_layout("uhdll", tmp_path, split="test")
    with pytest.raises(ValueError, match="unknown split 'val'"):
        read_layout("uhdll", tmp_path, split="val")


TREES = {  # layout: GT and LQ file of pair number {}, in its first folder
    "foundir": ("01Blur/GT/{:04d}.png", "01Blur/LQ/{:04d}.JPG"),
    "4krd": ("VID_001/sharp/{:05d}.jpg", "VID_001/blurry/{:05d}.jpg"),
    "realrain1k": ("RealRain-1k-H/test/target/{}.png", "RealRain-1k-H/test/input/{}.png"),
    "hazerd": ("data/img/IMG_{:04d}_RGB.jpg", "data/simu/IMG_{:04d}_50.jpg"),
    "uhdll": ("testing_set/gt/{}_UHD_LL.JPG", "testing_set/input/{}_UHD_LL.JPG"),
}


@pytest.mark.parametrize("layout", TREES)
def test_in_every_layout_what_is_unpaired_or_there_twice_is_listed_by_name(tmp_path, layout):
    gt, lq = TREES[layout]
    plant(
        tmp_path, gt.format(1), lq.format(1), gt.format(2), lq.format(3), gt.format(4), lq.format(4)
    )
    twice = [lq.format(4), str(Path(lq.format(4)).with_suffix(".webp"))]
    plant(tmp_path, twice[1])
    found = read_layout("auto", tmp_path)
    assert found.layout == layout
    assert [
        (pair.gt.relative_to(tmp_path).as_posix(), pair.lq.relative_to(tmp_path).as_posix())
        for pair in found.pairs
    ] == [(gt.format(1), lq.format(1))]
    listed = problems(found)
    assert {
        ("unpaired GT", gt.format(2)),
        ("unpaired LQ", lq.format(3)),
        *(("duplicate", name) for name in twice),
    } <= set(listed)
    assert set(listed) <= {("unpaired GT", gt.format(n)) for n in (2, 4)} | {
        ("unpaired LQ", lq.format(3))
    } | {("duplicate", n) for n in twice}
    with pytest.raises(ValueError, match="problem\\(s\\) in this"):
        require_complete(found)


# --- requests that make no sense ------------------------------------------------------------------


def test_layout_cannot_be_told(tmp_path):
    plant(tmp_path, "a/b.png")
    with pytest.raises(
        ValueError, match=r"folders of no known layout.*(?s:.)*uhdll: \{training_set,testing_set\}"
    ):
        detect_layout(tmp_path)
    plant(
        tmp_path,
        "01Blur/GT/1.png",
        "01Blur/LQ/1.png",
        "VID_001/sharp/1.png",
        "VID_001/blurry/1.png",
    )
    with pytest.raises(ValueError, match="fits the layouts foundir, 4krd"):
        detect_layout(tmp_path)


def test_options_that_a_layout_has_not_are_refused(tmp_path):
    for layout, options, has in [
        ("foundir", {"split": "test"}, "it has meta"),
        ("uhdll", {"meta": "m.txt"}, "it has split"),
        ("hazerd", {"frames": "f.txt"}, "it has no options"),
    ]:
        with pytest.raises(
            ValueError, match=f"layout {layout} has no option '{next(iter(options))}'.*{has}"
        ):
            read_layout(layout, tmp_path, **options)
    with pytest.raises(
        ValueError, match="unknown layout 'foundIR'; choose one of auto, foundir, 4krd"
    ):
        read_layout("foundIR", tmp_path)
    for read in (detect_layout, lambda root: read_layout("foundir", root)):
        with pytest.raises(ValueError, match="no such folder"):
            read(tmp_path / "no")


def test_require_complete_names_the_first_ten(tmp_path):
    pair = Pair("01Blur/1", "01Blur", tmp_path / "lq.png", tmp_path / "gt.png")
    bad = [
        Problem("unpaired LQ", tmp_path / f"{i}.png", "01Blur", "no GT of this name")
        for i in range(12)
    ]
    with pytest.raises(ValueError) as error:
        require_complete(PairList("foundir", tmp_path, [pair], bad))
    lines = str(error.value).splitlines()
    assert lines[0] == f"{tmp_path}: 12 problem(s) in this foundir data set:"
    assert lines[1] == f"  unpaired LQ: {tmp_path / '0.png'} (no GT of this name)"
    assert lines[10:12] == [f"  {bad[9]}", "  ... and 2 more"]
    assert "data check" in lines[12]
    with pytest.raises(ValueError, match="no pairs of images"):
        require_complete(PairList("foundir", tmp_path))
    assert require_complete(PairList("foundir", tmp_path, [pair])) == [pair]
