"""`data check` on trees with real image files: what it counts, names, and draws."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_mimdit.data.check import check, check_pairs
from lit_mimdit.data.contact_sheet import write_contact_sheet
from lit_mimdit.data.layouts import Pair, PairList

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def picture(path: Path, colour=RED, size=(48, 32), kind=None, orientation=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", size, colour).save(path, kind, exif=exif)
    return path


def tree(root: Path) -> Path:
    """Three types without a problem; among them a JPEG named .png that is stored on its side."""
    for i in (1, 2):
        picture(root / f"01Blur/LQ/{i:04d}.png", RED)
        picture(root / f"01Blur/GT/{i:04d}.png", GREEN)
    picture(root / "06JPEG/LQ/0003.JPG", RED, (30, 20))
    picture(root / "06JPEG/GT/0003.png", GREEN, (30, 20))
    picture(root / "14Lowlight/LQ/1118.png", RED, (20, 30), "JPEG", orientation=6)
    picture(root / "14Lowlight/GT/1118.png", GREEN, (30, 20))
    return root


def draw_sheet(path: Path, pairs: list[Pair], samples: int = 2) -> np.ndarray:
    """The pixels of the contact sheet of these pairs."""
    _, names, read = check_pairs(PairList("foundir", path.parent, pairs), False, 1)
    write_contact_sheet(path, names, read, samples)
    return np.asarray(Image.open(path))


def row(output: str, name: str) -> list[str]:
    return next(line for line in output.splitlines() if line.startswith(name)).split()


def test_a_whole_data_set(tmp_path, capsys):
    assert check(tree(tmp_path), contact_sheet=None) == 0
    output = capsys.readouterr().out
    assert row(output, "01Blur") == ["01Blur", "2", "48x32", "(2)", "png/png", "(2)", "0"]
    assert row(output, "06JPEG") == ["06JPEG", "1", "30x20", "(1)", "png/JPG", "(1)", "0"]
    assert row(output, "total") == ["total", "4", "0"]
    assert "no problem(s), 4 pair(s)" in output
    assert "1 file(s) of another format than their name says, 1 with EXIF orientation" in output
    assert f"{tmp_path / '14Lowlight/LQ/1118.png'}: is a JPEG, EXIF orientation 6" in output


def test_problems_are_counted_and_named(tmp_path, capsys):
    tree(tmp_path)
    truncated = tmp_path / "01Blur/LQ/0002.png"
    truncated.write_bytes(truncated.read_bytes()[:60])
    empty = tmp_path / "06JPEG/GT/0003.png"
    empty.write_bytes(b"")
    picture(tmp_path / "14Lowlight/GT/1118.png", size=(30, 21))
    lonely = picture(tmp_path / "01Blur/GT/0009.png")
    assert check(tmp_path, contact_sheet=None) == 4
    output = capsys.readouterr().out
    assert f"unreadable: {truncated}: the image is truncated" in output
    assert f"unreadable: {empty}: the file is empty" in output
    assert "size mismatch: 14Lowlight/1118: LQ 30x20" in output and "GT 30x21" in output
    assert f"unpaired GT: {lonely}" in output
    assert [row(output, name)[-1] for name in ("01Blur", "06JPEG", "14Lowlight", "total")] == [
        "2",
        "1",
        "1",
        "4",
    ]
    assert "4 problem(s), 4 pair(s)" in output


def test_headers_only_does_not_see_a_truncated_file(tmp_path):
    tree(tmp_path)
    path = tmp_path / "01Blur/LQ/0002.png"
    path.write_bytes(path.read_bytes()[:-30])
    assert check(tmp_path, contact_sheet=None, decode=False) == 0
    assert check(tmp_path, contact_sheet=None, decode=True) == 1


def test_a_broken_gt_of_several_lq_is_one_problem(tmp_path):
    for i in (1, 2, 3):
        picture(tmp_path / f"Rain/{i}.png")
    (tmp_path / "gt.png").write_bytes(b"not an image")
    (tmp_path / "m.txt").write_text("".join(f"gt.png, Rain/{i}.png\n" for i in (1, 2, 3)))
    assert check(tmp_path, meta=tmp_path / "m.txt", contact_sheet=None) == 1


def test_every_pair_is_looked_at_whatever_the_number_of_threads(tmp_path):
    for i in range(40):
        picture(tmp_path / f"01Blur/LQ/{i}.png", size=(8, 8))
        picture(tmp_path / f"01Blur/GT/{i}.png", size=(8, 8 + i % 2))
    assert (
        check(tmp_path, contact_sheet=None, workers=1)
        == check(tmp_path, contact_sheet=None, workers=3)
        == 20
    )


def test_long_lists_are_cut(tmp_path, capsys):
    for i in range(5):
        picture(tmp_path / f"01Blur/LQ/{i}.png")
    (tmp_path / "01Blur/GT").mkdir()
    assert check(tmp_path, max_listed=2) == 5
    output = capsys.readouterr().out
    assert output.count("unpaired LQ") == 2 and "... and 3 more" in output


def test_split_frames_and_layout_are_passed_on(tmp_path, capsys):
    for part, number in [("training_set", 3), ("testing_set", 1)]:
        for i in range(number):
            for side in ("gt", "input"):
                picture(tmp_path / f"uhd/{part}/{side}/{i}_UHD_LL.JPG", kind="JPEG")
    for split, number in [(None, 1), ("train", 3)]:
        assert check(tmp_path / "uhd", split=split, contact_sheet=None) == 0
        assert row(capsys.readouterr().out, "Lowlight")[1] == str(number)
    for i in (1, 2):
        for side in ("sharp", "blurry"):
            picture(tmp_path / f"4k/VID_001/{side}/{i:05d}.jpg")
    (tmp_path / "frames.txt").write_text("VID_001/00002\n")
    assert (
        check(tmp_path / "4k", layout="4krd", frames=tmp_path / "frames.txt", contact_sheet=None)
        == 0
    )
    assert row(capsys.readouterr().out, "Blur")[1] == "1"


def test_a_folder_without_pairs_is_a_problem(tmp_path, capsys):
    (tmp_path / "01Blur/GT").mkdir(parents=True)
    (tmp_path / "01Blur/LQ").mkdir()
    assert check(tmp_path, contact_sheet=tmp_path / "sheet.png") == 1
    assert "no pairs of images found" in capsys.readouterr().out
    assert not (tmp_path / "sheet.png").exists()


def test_impossible_settings(tmp_path):
    for name in ("samples", "workers", "max_listed"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            check(tmp_path, **{name: 0})
    for path in (tmp_path / "sheet.gif", tmp_path / "no" / "sheet.png"):
        with pytest.raises(
            ValueError, match=r"contact_sheet must be a \.png file in a folder that exists"
        ):
            check(tmp_path, contact_sheet=path)


# --- contact sheet --------------------------------------------------------------------------------


def share(pixels: np.ndarray, colour) -> float:
    return (np.abs(pixels.astype(int) - colour).max(axis=2) < 12).mean()


def test_contact_sheet_has_a_row_a_degradation_with_lq_left_of_gt(tmp_path):
    sheet = tmp_path / "sheet.png"
    check(tree(tmp_path / "set"), contact_sheet=sheet, samples=1)
    pixels = np.asarray(Image.open(sheet))
    height, width, _ = pixels.shape
    for i in range(3):
        strip = pixels[i * height // 3 : (i + 1) * height // 3]
        left, right = strip[:, : width // 2], strip[:, width // 2 :]
        assert share(left, RED) > 0.5 and share(right, GREEN) > 0.5
        assert share(left, GREEN) == share(right, RED) == 0
        assert share(left[:28], (0, 0, 0)) > 0, "the row has its label"


def test_contact_sheet_spreads_its_samples_and_shows_broken_files(tmp_path):
    pairs = []
    for i in range(9):
        lq, gt = (
            picture(tmp_path / f"{side}{i}.png", BLUE if i == 8 else RED) for side in ("lq", "gt")
        )
        pairs.append(Pair(f"a/{i}", "a", lq, gt))
    (tmp_path / "lq0.png").write_bytes(b"broken")
    pixels = draw_sheet(tmp_path / "sheet.png", pairs)
    quarters = np.array_split(pixels, 4, axis=1)
    assert share(quarters[0], (178, 34, 34)) > 0.5, "an unreadable file is a red cell"
    assert share(quarters[1], RED) > 0.5
    assert share(quarters[2], BLUE) > 0.5 and share(quarters[3], BLUE) > 0.5, (
        "the last pair is among the samples"
    )


def test_long_labels_stay_in_their_cell(tmp_path):
    lq, gt = picture(tmp_path / "lq.png", GREEN), picture(tmp_path / "gt.png", GREEN)
    sheets = []
    for name in ("a", "a" + 20 * "/long"):
        sheets.append(draw_sheet(tmp_path / "sheet.png", [Pair(name, "a", lq, gt)]))
    half = sheets[0].shape[1] // 2
    assert not np.array_equal(sheets[0][:, :half], sheets[1][:, :half])
    np.testing.assert_array_equal(sheets[0][:, half:], sheets[1][:, half:])


def test_contact_sheet_takes_16_bit_images(tmp_path):
    from lit_mimdit.data.image_io import to_tensor, write_photo

    level = np.full((20, 30, 3), 40000, np.uint16)
    for side in ("LQ", "GT"):
        (tmp_path / "01Blur" / side).mkdir(parents=True)
        write_photo(tmp_path / "01Blur" / side / "1.png", to_tensor(level), bits=16)
    assert check(tmp_path, contact_sheet=tmp_path / "sheet.png") == 0
    assert share(np.asarray(Image.open(tmp_path / "sheet.png")), (156, 156, 156)) > 0.5
