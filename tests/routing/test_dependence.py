"""Formulas against values by hand and against other packages."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from lit_mimdit.routing.dependence import (
    false_discovery,
    mutual_information,
    permutation_test,
    tables,
)


def test_mutual_information_worked_by_hand():
    """8 images; light ones choose expert 0 three times of four, heavy ones once of four.

    p(s, c) = 3/8, 1/8, 1/8, 3/8; margins 1/2: I = 2 (3/8 log2(3/2) + 1/8 log2(1/2)) = 0.188722
    bits.
    """
    labels, choice = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 0, 1, 1, 1])
    counts = tables(labels, np.eye(2)[choice])
    assert counts.tolist() == [[3, 1], [1, 3]]
    assert (
        mutual_information(counts)
        == pytest.approx(2 * (3 / 8 * np.log2(1.5) + 1 / 8 * np.log2(0.5)))
        == pytest.approx(0.188722, abs=1e-6)
    )
    assert (
        mutual_information(np.array([[2.0, 0], [0, 2]])) == pytest.approx(1.0)
        and mutual_information(np.ones((3, 4))) == 0
    )
    assert mutual_information(np.zeros((2, 2))) == 0


def test_mutual_information_is_scikit_learns():
    draw = np.random.default_rng(0)
    labels, choice = draw.integers(0, 3, 60), draw.integers(0, 4, (60, 2, 5))
    found = mutual_information(tables(labels, np.eye(4)[choice]))
    for place in np.ndindex(2, 5):
        expected = mutual_info_score(labels, choice[(slice(None), *place)]) / np.log(2)
        assert found[place] == pytest.approx(expected, abs=1e-12)


def test_two_selected_experts_and_shares_of_tiles_count_as_often_as_they_were_chosen():
    labels, chosen = np.array([0, 1]), np.array([[1.0, 1, 0], [0.25, 0.75, 1]])
    assert tables(labels, chosen).tolist() == [[1, 1, 0], [0.25, 0.75, 1]]
    joint = np.array([[1, 1, 0], [0.25, 0.75, 1]]) / 4
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    assert mutual_information(tables(labels, chosen)) == pytest.approx(
        sum(j * np.log2(j / a) for j, a in zip(joint.flat, apart.flat) if j)
    )


def test_the_permutation_test_approaches_the_exact_one():
    """6 images, 3 light and 3 heavy, one exception: all 720 orders by hand."""
    labels, chosen = np.array([0, 0, 0, 1, 1, 1]), np.eye(2)[[0, 0, 0, 0, 1, 1]]
    every = [
        mutual_information(tables(labels[list(order)], chosen))
        for order in itertools.permutations(range(6))
    ]
    found = mutual_information(tables(labels, chosen))
    exact = np.mean(np.array(every) >= found - 1e-12)
    bits, chance, p = permutation_test(labels, chosen, 4000, seed=0)
    assert (
        bits == found
        and p == pytest.approx(exact, abs=0.02)
        and chance == pytest.approx(np.mean(every), abs=0.02)
    )
    assert 0.3 < exact < 0.5


def test_a_dependence_is_found_and_independence_is_not():
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    dependent, independent = np.eye(4)[labels], np.eye(4)[draw.integers(0, 4, 60)]
    bits, chance, p = permutation_test(labels, np.stack([dependent, independent], 1), 199, seed=1)
    assert bits[0] == pytest.approx(np.log2(3)) and p[0] == pytest.approx(1 / 200) and p[1] > 0.05
    assert chance[1] > 0.01, "with few images information is not 0 by chance"
    again = permutation_test(labels, np.stack([dependent, independent], 1), 199, seed=1)
    assert np.array_equal(p, again[2])


def test_many_tests_are_corrected_by_hand():
    assert false_discovery(np.array([[0.01, 0.04], [0.03, 0.5]])) == pytest.approx(
        np.array([[0.04, 0.16 / 3], [0.16 / 3, 0.5]])
    )
    assert false_discovery(np.array([])).size == 0
