"""Tiers and numbers of these tests are those of their fixtures."""

import random
import re

import numpy as np
import pytest
import torch
from kit import seeds, tiers


@pytest.mark.parametrize(
    ("fixtures", "place", "marks"),
    [
        ([], "data/test_pairs.py", ["fast"]),
        ([], "test_house.py", ["fast"]),
        ([], "evaluation/test_intervals.py", ["fast"]),
        ([], "evaluation/test_evaluate.py", []),
        ([], "training/test_fit.py", []),
        (["takes_seconds"], "data/test_pairs.py", []),
        (["processes", "takes_seconds"], "data/test_pairs.py", ["process"]),
        (["takes_minutes"], "data/test_pairs.py", ["slow"]),
        (["takes_minutes", "processes"], "cluster/test_faults.py", ["process", "slow"]),
    ],
)
def test_the_tier_is_that_of_the_fixtures(fixtures, place, marks):
    assert tiers.marks_of(fixtures, place) == marks


@pytest.fixture
def heavy(takes_seconds) -> None:
    """Heavy through another fixture."""


def test_fixtures_count_through_others(heavy, request):
    assert "takes_seconds" in request.fixturenames
    assert request.node.get_closest_marker("fast") is None


def test_what_requests_none_of_them_is_fast(request):
    assert request.node.get_closest_marker("fast") is not None


def test_places_of_fast_tests_exist_and_no_mark_is_set_by_hand():
    assert [place for place in tiers.FAST_PLACES if not (tiers.TESTS / place).exists()] == []
    assert tiers.is_fast("evaluation") and not tiers.is_fast("training")
    by_hand = re.compile(rf"\bmark\.({'|'.join(['fast', *tiers.MARKS.values()])})\b")
    files = [file for file in tiers.TESTS.rglob("*.py") if by_hand.search(file.read_text("utf-8"))]
    assert files == []


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), torch.rand(1).item()  # noqa: NPY002


@pytest.fixture(scope="module")
def drawn() -> tuple[float, float, float]:
    return draw()


@pytest.mark.parametrize("before", [0, 3])
def test_a_fixture_of_many_tests_draws_its_own_numbers_and_takes_none_from_them(request, before):
    """Whenever it is set up, and it is when `before` is 0."""
    for _ in range(before):
        draw()
    found = request.getfixturevalue("drawn")
    after = draw()
    seeds.seed("drawn")
    assert found == draw()
    seeds.seed()
    for _ in range(before):
        draw()
    assert after == draw() != found
