"""From decisions to numbers per image."""

import numpy as np
import pytest
import torch

from lit_mimdit.routing.records import choices_of, records_of

from .conftest import decisions


def test_the_three_arrays_are_those_of_the_decisions():
    found = choices_of(
        decisions([[0.75, 0.25], [0.5, 0.5]], [[0.0, 1.0, 3.0], [2.0, 1.0, 0.0]], top_k=2)
    )
    assert found.inter.shape == (2, 1, 2) and found.gates.shape == found.chosen.shape == (
        2,
        1,
        2,
        3,
    )
    torch.testing.assert_close(found.inter[:, 0], torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    assert found.chosen[:, 0, 0].tolist() == [[0, 1, 1], [1, 1, 0]] and torch.equal(
        found.chosen[:, :, 0], found.chosen[:, :, 1]
    )
    by_hand = np.exp([0.0, 1.0, 3.0]) / np.exp([0.0, 1.0, 3.0]).sum()
    assert found.gates[0, 0, 1].numpy() == pytest.approx(by_hand, rel=1e-6), (
        "the softmax before the selection"
    )


def test_blocks_and_groups_keep_their_places():
    (first,), (second,) = (
        decisions([[0.75, 0.25]], [[5.0, 0.0]]),
        decisions([[0.1, 0.9]], [[0.0, 5.0]]),
    )
    found = choices_of((first._replace(intra=(first.intra[0], second.intra[0])), second))
    assert found.inter[0].flatten().tolist() == pytest.approx([0.75, 0.25, 0.1, 0.9])
    assert found.chosen[0].tolist() == [[[1, 0], [0, 1]], [[0, 1], [0, 1]]]


def test_an_image_in_tiles_is_the_mean_of_its_tiles():
    found = choices_of(decisions([[0.75, 0.25], [0.25, 0.75]], [[0.0, 1.0], [0.0, 1.0]])).mean()
    assert found.inter.tolist() == [[[0.5, 0.5]]] and found.chosen[0, 0, 0].tolist() == [0, 1]
    found = choices_of(
        decisions([[0.75, 0.25]] * 4, [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    ).mean()
    assert found.chosen[0, 0, 0].tolist() == [0.75, 0.25], "a share of the tiles"


def test_a_group_that_a_top1_router_left_out_worked_on_nothing():
    found = choices_of(decisions([[0.75, 0.25], [0.25, 0.75]], [[0.0, 1.0]] * 2, inter_k=1))
    assert (
        found.chosen[:, 0, :, 1].tolist() == [[1, 0], [0, 1]]
        and found.chosen[:, 0, :, 0].sum() == 0
    )
    torch.testing.assert_close(found.inter[:, 0], torch.tensor([[0.75, 0], [0, 0.75]]))


def test_the_same_sample_counts_once():
    batch = choices_of(decisions([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]], [[0.0, 1.0]] * 3))
    records = records_of([([("a", 1), ("b", 2), ("a", 1)], ["01Blur", "05Noise", "01Blur"], batch)])
    assert records.without(set()).key == [("a", 1), ("b", 2)]
    assert records.without({("b", 2)}).inter[:, 0, 0].tolist() == [pytest.approx(0.75)]
    again = records_of([([("a", 1), ("a", 2), ("b", 1)], ["01Blur"] * 3, batch)])
    assert len(again.without(set())) == 3, "another epoch's crop of an image is another sample"
    assert records.of("05Noise").key == [("b", 2)]
