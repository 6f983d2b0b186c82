"""Dead experts and collapsed routers."""

import numpy as np
import pytest

from lit_mimdit.routing.health import effective_number, enough, health_of
from lit_mimdit.routing.records import Records
from lit_mimdit.routing.tally import tally_of


def test_effective_numbers_by_hand():
    shares = np.array([[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0.25] * 4, [1, 1, 0, 0], [0] * 4])
    assert effective_number(shares) == pytest.approx([2, 1, 4, 2, 0])
    assert effective_number(np.array([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)


def images(chosen: np.ndarray, inter: list[float], top_k: int = 2) -> Records:
    count = len(chosen)
    weights = np.broadcast_to(np.float32(inter), (count, 1, 2))
    return Records(
        [(str(i), i) for i in range(count)], ["01Blur"] * count, weights, chosen / top_k, chosen
    )


def test_dead_and_collapsed_are_named():
    chosen = np.zeros((200, 1, 2, 4), np.float32)
    chosen[:, 0, 0, :2] = 1  # all images alike: collapsed, 2 and 3 dead
    chosen[:100, 0, 1, [0, 1]] = chosen[100:, 0, 1, [2, 3]] = 1
    chosen[0, 0, 1] = [0, 1, 1, 0]  # one image of 200 is 0.5%
    found = health_of(tally_of(images(chosen, [0.5, 0.5])), 2, 0.01, 0.05)
    assert found.dead == [(0, 0, 2), (0, 0, 3)] and found.collapsed == [(0, 0)]
    assert found.intra_effective[0] == pytest.approx(
        [2, 4], abs=1e-3
    ) and found.inter_effective == pytest.approx([2])
    first, second = found.sentences(["spatial", "swin"])
    assert (
        first == "dead sub-experts, which hardly any image chooses (2): block 0 spatial 2, block 0"
        " spatial 3"
    )
    assert second == "collapsed routers, which send all images the same way (1): block 0 spatial"
    assert health_of(tally_of(images(chosen, [0.5, 0.5])), 2, 0.6, 0.05).dead == [
        (0, 0, 2), (0, 0, 3), (0, 1, 0), (0, 1, 1), (0, 1, 2), (0, 1, 3),
    ]  # fmt: skip


def test_an_inter_router_that_knows_one_group_only_has_collapsed():
    chosen = np.ones((100, 1, 2, 4), np.float32)
    assert health_of(tally_of(images(chosen, [0.999, 0.001])), 4, 0.01, 0.05).collapsed == [
        (0, None)
    ]
    healthy = health_of(tally_of(images(chosen, [0.9, 0.1])), 4, 0.01, 0.05)
    assert healthy.collapsed == [] and healthy.sentences(["a", "b"]) == [], (
        "a dense Intra router cannot collapse by using all"
    )
    assert health_of(tally_of(images(chosen, [0.9, 0.1])), 4, 0.01, 0.5).collapsed == [(0, None)]


def test_too_few_images_are_not_judged():
    chosen = np.ones((99, 1, 2, 4), np.float32)
    assert not enough(tally_of(images(chosen, [0.5, 0.5])), 0.01) and enough(
        tally_of(images(chosen, [0.5, 0.5])), 0.02
    )
