"""What a photograph looks like to the routers, and how the microscope shows it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_mimdit.data.degradations import SEVERITIES
from lit_mimdit.demo_page import looks as module
from lit_mimdit.demo_page.looks import (
    KINDS,
    SHIPPED,
    Looks,
    crops,
    looks_of,
    read,
    reliance,
    sentence,
)
from lit_mimdit.demo_page.microscope import bars, microscope, tile_map
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.run_record import file_hash
from lit_mimdit.inference.system_file import system_path
from lit_mimdit.routing.records import choices_of


def two_kinds() -> Looks:
    """Three points at 0 and two at 1, in a space of two blocks and two groups."""
    inter = np.zeros((5, 2, 2), np.float32)
    inter[3:] = 1.0
    return Looks(inter, ["rain", "rain", "haze", "noise", "noise"])


def test_shares_of_the_nearest_crops():
    looks = two_kinds()
    assert looks.like(np.full((2, 2), 0.1), nearest=3) == pytest.approx(
        {"rain": 2 / 3, "haze": 1 / 3}
    )
    assert looks.like(np.full((2, 2), 0.9), nearest=2) == {"noise": 1.0}
    assert sentence({"rain": 0.71, "haze": 0.12}) == "looks like: rain 0.71, haze 0.12"
    assert looks.means["noise"].tolist() == [[1, 1], [1, 1]]


def test_the_shipped_looks_are_those_of_the_shipped_branch():
    known = read(SHIPPED, file_hash(system_path(None)))
    assert known is not None and set(known.names) == set(KINDS)
    restorer = load_restorer(None, device="cpu")
    every = crops(restorer.config.tile)
    assert [name for name, _ in every] == known.names
    for row in (0, 100):
        (decisions,) = restorer.route(every[row][1][None])
        found = choices_of(decisions).inter.mean(0).numpy()
        np.testing.assert_allclose(found, known.inter[row], atol=1e-4)


def test_the_shipped_routers_tell_what_the_page_says():
    known = read(SHIPPED, file_hash(system_path(None)))
    page = (Path(__file__).parents[2] / "docs" / "how_to" / "demo.md").read_text()
    shown = re.findall(r"^\| ([\w ]+) \| (\d+)% \| ([\d.]+) \|$", page, re.MULTILINE)
    assert {name: (int(share), float(moved)) for name, share, moved in shown} == {
        name: (round(100 * known.recall[name]), round(known.moved[name], 2)) for name in KINDS
    }


def test_a_degradation_that_moves_the_weights_is_found_and_no_other():
    """Three photographs that differ by 0.1; one degradation moves the first weight by 1."""
    draw = np.random.default_rng(0)
    names = [name for _ in range(3) for name in KINDS for _ in SEVERITIES]
    scenes = np.repeat(np.arange(3), len(names) // 3)[:, None, None] * np.float32(0.1)
    inter = scenes + 0.001 * draw.random((len(names), 2, 4), np.float32)
    inter[[name == "haze" for name in names], 0, 0] += 1.0
    looks = Looks(inter, names)
    assert looks.recall["haze"] == 1 and looks.recall["noise"] < 1
    few = Looks(np.repeat(inter, 2, axis=1), names)
    assert few.moved["haze"] == pytest.approx(np.sqrt(2), abs=0.01)
    assert few.moved["noise"] < 0.01
    assert few.moved["clean"] == pytest.approx(0.1 * 4 * 2 / 3, abs=0.01)


def test_the_page_says_how_far_looks_can_be_trusted():
    recall = {"haze": 0.81, "rain": 0.476, "blur": 0.0}
    shares = {"haze": 0.7, "rain": 0.2, "fog": 0.1, "blur": 0.0}
    text = "Of known crops the routers find again: haze 81%, rain 48%."
    assert reliance(shares, recall) == text
    assert reliance(shares, {}) == "" and two_kinds().recall == {}
    chosen = np.array([[[1, 0.25], [0, 1]]] * 2)
    every = Looks(np.tile(two_kinds().inter[:1], (48, 1, 1)), list(KINDS) * 6)
    page = microscope(np.ones((1, 2, 2)), chosen, ["a", "b"], every)
    assert "find again: clean 100%" in page


def test_other_checkpoints_are_learned_once(branch_file, cache, monkeypatch):
    restorer = load_restorer(branch_file, device="cpu")
    few = crops(32)[::20]
    monkeypatch.setattr(module, "crops", lambda side: few)
    learned = looks_of(restorer, branch_file)
    assert learned.inter.shape == (len(few), 3, 4)
    monkeypatch.setattr(module, "learn", None)
    assert np.array_equal(looks_of(restorer, branch_file).inter, learned.inter)


def test_the_bars_have_the_lengths_of_the_weights():
    page = bars({"this": np.array([0.25, 0.75]), "other": np.array([1.0, 1.0])}, ["a<b", "c"])
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="16"', page)]
    assert widths == pytest.approx([105, 315, 210, 210])
    assert "a&lt;b" in page and "a<b" not in page


def test_a_map_shades_tiles_by_their_weight():
    boxes = [(0, 0, 10, 10), (0, 10, 10, 10), (0, 20, 10, 10)]
    page = tile_map(np.array([0.2, 0.4, 0.3]), boxes, (10, 30), "swin")
    assert re.findall(r'fill-opacity="([\d.]+)"', page) == ["0.00", "0.60", "0.30"]
    assert "swin: 0.200 to 0.400" in page


def test_the_microscope_of_one_tile_has_no_map():
    inter = torch.rand(1, 2, 2).numpy()
    chosen = np.array([[[1, 0.25], [0, 1]]] * 2)
    page = microscope(inter, chosen, ["a", "b"], two_kinds(), [(0, 0, 8, 8)], (8, 8))
    assert "over the photograph" not in page and "sub-expert 1: 25% of the tiles" in page
    assert page.count("block 1") == 3  # two bars' titles and a row of the table
    assert "looks like" not in microscope(inter, chosen, ["a", "b"], None)
