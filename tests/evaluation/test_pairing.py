"""Images are paired by name, and what cannot be paired is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lit_mimdit.evaluation.image_names import id_of
from lit_mimdit.evaluation.pairing import pair, require_whole

from .conftest import picture, save

NAMES = [
    "01Blur/0000",
    "01Blur/0001",
    "01Blur/0002",
    "05Noise/0003",
    "05Noise/0004",
    "05Noise/0005",
]


def found(**changes):
    return pair(
        **(
            {
                "restored": Path("restored"),
                "reference": Path("reference"),
                "degraded": Path("degraded"),
            }
            | changes
        )
    )


def test_a_name_is_the_path_without_sides_and_extension():
    assert id_of(Path("01Blur/LQ/0001.PNG")) == id_of(Path("01Blur/gt/0001.jpeg")) == "01Blur/0001"
    assert id_of(Path("VID_001/blurry/00001.jpg")) == "VID_001/00001"


def test_folders_pair_by_name_whatever_their_extensions_and_sides(folders):
    pairing = found()
    assert [item.id for item in pairing.items] == NAMES and pairing.problems == []
    for item in pairing.items:
        stems = {path.stem for path in item.files.values()}
        assert (
            len(stems) == 1
            and item.id.endswith(stems.pop())
            and item.degradation == item.id.split("/")[0]
        )
        assert (
            item.files["restored"].parts[0] == "restored"
            and item.files["reference"].suffix == ".PNG"
        )
    assert {item.size for item in pairing.items} == {(40, 52), (44, 52)}


def test_order_and_position_mean_nothing(folders):
    """Two sorted lists of equal length with other names: position would pair them."""
    Path("restored/01Blur/0000.png").rename("restored/01Blur/9999.png")
    pairing = found()
    assert len(pairing.items) == 5 and all(
        item.id.endswith(item.files["reference"].stem) for item in pairing.items
    )
    assert len(pairing.problems) == 2
    assert "missing: no restored image for reference/01Blur/GT/0000.PNG" in pairing.problems
    assert (
        "extra: restored/01Blur/9999.png has no reference and no degraded image" in pairing.problems
    )
    with pytest.raises(
        ValueError,
        match=r"2 image\(s\) cannot be paired: .*--intersection to evaluate the other 5 only",
    ):
        require_whole(pairing, intersection=False)
    require_whole(pairing, intersection=True)


def test_other_sizes_are_listed_never_resized(folders):
    save(Path("restored/05Noise/0003.png"), picture(3, 44, 50))
    assert found().problems == [
        "size mismatch: restored/05Noise/0003.png 50 x 44, reference/05Noise/GT/0003.PNG 52 x 44,"
        " degraded/05Noise/LQ/0003.png 52 x 44"
    ]


def test_one_name_twice_is_no_pair(folders):
    save(Path("restored/01Blur/0001.bmp"), picture(1))
    pairing = found()
    assert len(pairing.items) == 5
    assert pairing.problems == [
        "ambiguous restored: restored/01Blur/0001.bmp, restored/01Blur/0001.png have one name"
    ]


def test_unreadable_files_are_listed(folders):
    Path("restored/01Blur/0002.png").write_bytes(b"nothing")
    assert [problem.split(":")[0] for problem in found().problems] == ["unreadable"]


def test_a_flat_folder_pairs_by_file_name_and_learns_the_degradation(folders):
    for path in list(Path("restored").rglob("*.png")):
        shutil.move(path, Path("restored", path.name))
    pairing = found()
    assert pairing.by == "file name" and [item.id for item in pairing.items] == NAMES
    assert {item.degradation for item in pairing.items} == {"01Blur", "05Noise"}
    assert all(
        item.files["restored"].stem == item.files["reference"].stem for item in pairing.items
    )
    shutil.copy(
        "reference/01Blur/GT/0000.PNG", "reference/05Noise/GT/0000.PNG"
    )  # one file name twice: no more guessing
    with pytest.raises(ValueError, match="no image has its counterpart"):
        require_whole(found(degraded=None), intersection=True)


def test_a_layout_gives_ids_degradations_and_the_degraded_side(folders):
    for side in ("GT", "LQ"):
        for path in list(Path("degraded" if side == "LQ" else "reference").rglob("*.*")):
            save(
                Path("root", path.parts[1], side, path.name),
                np.asarray(picture(int(path.stem), 40 + 4 * (int(path.stem) % 2), 52)),
            )
    pairing = found(reference=Path("root"), degraded=Path("root"), layout="foundir")
    assert [(item.id, item.degradation) for item in pairing.items][::5] == [
        ("01Blur/0000", "01Blur"),
        ("05Noise/0005", "05Noise"),
    ]
    assert pairing.dataset == "FoundIR" and pairing.items[0].files["degraded"].parts[2] == "LQ"
    with pytest.raises(ValueError, match="with --layout give the root root"):
        found(reference=Path("root"), layout="foundir")
    with pytest.raises(ValueError, match="meta is given without --layout"):
        found(meta=Path("m.txt"))
    with pytest.raises(ValueError, match="layout is given without --reference"):
        pair(Path("restored"), None, None, "foundir")


def test_without_reference_there_are_restored_images_alone(folders):
    pairing = pair(Path("restored"), None, None)
    assert len(pairing.items) == 6 and list(pairing.items[0].files) == ["restored"]
    with pytest.raises(ValueError, match="empty: no such folder"):
        pair(Path("empty"), None, None)
