"""The order of an epoch: pure functions, for many cluster shapes."""

from collections import Counter

import numpy as np
import pytest

from lit_mimdit.data.faults import stand_in
from lit_mimdit.data.mixing import Table, balanced, natural
from lit_mimdit.data.order import Cluster, EpochSampler, Position

GROUP = np.repeat([0, 1, 2], [50, 9, 1])
TABLE = Table(GROUP, np.arange(60) // 6)


@pytest.mark.parametrize("window", [None, 1, 3, 100])
def test_natural_takes_each_once_and_no_more_shards_than_the_window_at_once(window):
    order = natural(TABLE, window, seed=1)
    for epoch in range(3):
        assert sorted(order(epoch)) == list(range(60))
        if window in (1, 3):
            parts = TABLE.shard[order(epoch)]
            assert all(
                len(set(parts[start : start + 6 * window])) <= window
                for start in range(0, 60, 6 * window)
            )
    assert not np.array_equal(order(0), order(1)) and np.array_equal(
        order(2), natural(TABLE, window, seed=1)(2)
    )


@pytest.mark.parametrize("window", [None, 2])
def test_balanced_takes_each_degradation_equally_often_and_its_pairs_in_passes(window):
    order, total = balanced(TABLE, window, seed=1), Counter()
    for epoch in range(9):
        places = order(epoch)
        assert len(places) == 60 == len(set(places)), "another visit is another place"
        for start in range(0, 60, 3):
            assert sorted(GROUP[places[start : start + 3] % 60]) == [0, 1, 2]
        total.update((places % 60).tolist())
        for kind in range(3):
            counts = [total[index] for index in np.flatnonzero(np.equal(GROUP, kind))]
            assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("mixing", [natural, balanced])
@pytest.mark.parametrize("ranks, batch", [(1, 4), (2, 2), (4, 1), (3, 5), (7, 2), (10, 6)])
@pytest.mark.parametrize("seen", [0, 4, 20])
def test_any_number_of_ranks_goes_on_with_the_rest_of_the_epoch(mixing, ranks, batch, seen):
    order, rest = mixing(TABLE, 2, seed=3), []
    for rank in range(ranks):
        sampler = EpochSampler(60, batch, 3, True, False, Cluster(ranks, rank), order)
        sampler.begin_at(Position(1, seen))
        rest += [place for items in sampler for _, place in items]
    assert sorted(rest) == sorted(order(1)[seen:].tolist())


def test_a_stand_in_is_a_function_of_its_place_and_of_the_same_degradation_first():
    found = [stand_in(55, attempt, (0, 1, 55), GROUP) for attempt in range(40)]
    assert found == [stand_in(55, attempt, (0, 1, 55), GROUP) for attempt in range(40)]
    assert {int(GROUP[index]) for index in found[:16]} == {1} and {
        int(GROUP[index]) for index in found[16:]
    } >= {0, 1}
    assert stand_in(55, 0, (0, 1, 55), GROUP) != stand_in(55, 0, (0, 2, 55), GROUP) or stand_in(
        55, 1, (0, 1, 55), GROUP
    )
