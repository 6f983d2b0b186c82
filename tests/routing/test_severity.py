"""Where light, medium and heavy come from."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_mimdit.data.layouts import Pair, read_layout
from lit_mimdit.routing.command import severities_of
from lit_mimdit.routing.severity import by_thirds, find_table, psnr_of, read_table


@pytest.fixture
def pair(tmp_path) -> Pair:
    gt = np.full((8, 12, 3), 100, np.uint8)
    lq = gt.copy()
    lq[2:6, 4:8] += 10  # the middle crop of 4 px is off by 10 everywhere
    for name, pixels in (("gt", gt), ("lq", lq)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return Pair("a", "01Blur", tmp_path / "lq.png", tmp_path / "gt.png")


def test_sample_data_says_its_severities(data_root):
    for root in (data_root, data_root / "test"):
        table = find_table(root, None)
        pairs = read_layout("foundir", root).pairs
        assert {
            (p.degradation, s)
            for p, s in zip(pairs, read_table(table, pairs))
            if p.lq.parts[-4] == "test"
        } == {
            ("01Blur", "light"),
            ("05Noise", "medium"),
        }
    levels, source = severities_of(
        read_layout("foundir", data_root / "test").pairs, "auto", data_root / "test", None, None
    )
    assert levels == ["light", "medium"] and source == "samples.csv (2 of 2 images)"


def test_a_table_of_ones_own(pair, tmp_path):
    table = Path(tmp_path, "mine.csv")
    table.write_text("lq,severity,note\nlq.png,heavy,x\nother.png,light,\n")
    assert read_table(find_table(tmp_path / "data", table), [pair]) == ["heavy"]
    assert severities_of([pair], "table", tmp_path, table, None) == (
        ["heavy"],
        "mine.csv (1 of 1 images)",
    )
    table.write_text("lq,severity\nother.png,light\n")
    assert read_table(table, [pair]) == [""]
    table.write_text("lq,severity\nlq.png,awful\n")
    with pytest.raises(ValueError, match="says 'awful'; choose among light, medium, heavy"):
        read_table(table, [pair])
    table.write_text("path,severity\n")
    with pytest.raises(ValueError, match="columns path, severity; it needs lq and severity"):
        read_table(table, [pair])
    with pytest.raises(ValueError, match="no file .*gone.csv"):
        find_table(tmp_path, Path("gone.csv"))


def test_without_a_table_psnr_tells(pair, tmp_path):
    assert psnr_of(pair, 4) == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)
    assert psnr_of(pair, None) == pytest.approx(
        20 * np.log10(255 / 10) + 10 * np.log10(96 / 16), abs=1e-3
    )
    assert severities_of([pair], "psnr", tmp_path, None, 4) == (
        ["light"],
        "thirds of each degradation's images by PSNR (LQ against GT)",
    )
    assert severities_of([pair], "auto", tmp_path / "none", None, 4)[0] == ["light"]
    assert severities_of([pair], "none", tmp_path, None, 4) == ([""], "not asked for")
    with pytest.raises(
        ValueError,
        match="severity is table: there is no samples.csv .* --severities FILE, or --severity psnr",
    ):
        severities_of([pair], "table", tmp_path / "none", None, None)


def test_thirds_are_within_each_degradation():
    values, names = [30.0, 20.0, 10.0, 3.0, 2.0, 1.0, 5.0], ["a"] * 3 + ["b"] * 4
    assert by_thirds(values, names) == [
        "light",
        "medium",
        "heavy",
        "light",
        "medium",
        "heavy",
        "light",
    ]
