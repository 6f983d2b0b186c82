"""Sums over images, and their sum over processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lit_mimdit.routing.records import Records, records_of
from lit_mimdit.routing.tally import (
    BINS,
    Tally,
    entropy,
    gather,
    histogram,
    join,
    tallies_of,
    tally_of,
    total,
)


def records(count: int, seed: int = 0) -> Records:
    """Images of two degradations: 3 blocks, 2 groups, 4 sub-experts."""
    draw = np.random.default_rng(seed)
    inter, gates = draw.dirichlet(np.ones(2), (count, 3)), draw.dirichlet(np.ones(4), (count, 3, 2))
    chosen = (gates >= np.sort(gates, -1)[..., -2:-1]).astype(np.float32)
    names = [("01Blur", "05Noise")[i % 2] for i in range(count)]
    return Records(
        [(f"image {i}", i) for i in range(count)],
        names,
        np.float32(inter),
        np.float32(gates),
        chosen,
    )


def same(a: dict[str, Tally], b: dict[str, Tally]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        for field, one, two in zip(Tally._fields, a[name], b[name], strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-13, err_msg=f"{name} {field}")


def test_a_tally_by_hand():
    one = Records(
        [("a", 0), ("b", 0)],
        ["01Blur", "01Blur"],
        np.float32([[[0.75, 0.25]], [[0.5, 0.5]]]),
        np.float32([[[[1, 0], [0.5, 0.5]]], [[[1, 0], [0.25, 0.75]]]]),
        np.float32([[[[1, 0], [1, 0]]], [[[1, 0], [0, 1]]]]),
    )
    found = tally_of(one)
    assert (
        found.images == 2
        and found.mean_inter.tolist() == [[0.625, 0.375]]
        and found.spread_inter.tolist() == [[0.125, 0.125]]
    )
    assert found.shares.tolist() == [[[1, 0], [0.5, 0.5]]] and found.gates.tolist() == [
        [[2, 0], [0.75, 1.25]]
    ]
    assert found.gate_squares.tolist() == [[[2, 0], [0.3125, 0.8125]]]
    by_hand = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) + np.log(2)
    assert found.inter_entropy == pytest.approx([by_hand]) and found.gate_entropy[
        0
    ] == pytest.approx([0, by_hand])
    assert np.flatnonzero(found.inter_histogram[0, 0]).tolist() == [
        int(0.5 * BINS),
        int(0.75 * BINS),
    ]
    assert found.gates_histogram[0, 0, 0, BINS - 1] == 2, "1 belongs to the last bin"


def test_histograms_are_numpys():
    values = np.random.default_rng(1).random((500, 3, 2))
    counts = histogram(values)
    for place in np.ndindex(3, 2):
        assert (
            counts[place].tolist()
            == np.histogram(values[(slice(None), *place)], BINS, (0, 1))[0].tolist()
        )


def test_entropy_is_known_at_its_ends():
    assert entropy(np.array([[1.0, 0, 0], [1 / 3] * 3])) == pytest.approx([0, np.log(3)])


def test_parts_add_up_to_the_whole():
    whole = records(9)
    same(
        join(
            [
                tallies_of(whole.rows([0, 1, 2, 3])),
                tallies_of(whole.rows([4])),
                tallies_of(whole.rows([5, 6, 7, 8])),
            ]
        ),
        tallies_of(whole),
    )
    assert total(list(tallies_of(whole).values())).images == 9
    same({"x": total(list(tallies_of(whole).values()))}, {"x": tally_of(whole)})


def test_records_come_from_batches_in_order():
    whole = records(5)
    parts = [whole.rows([0, 1]), whole.rows([2, 3, 4])]
    again = records_of(
        [
            (p.key, p.degradation, tuple(map(torch.from_numpy, (p.inter, p.gates, p.chosen))))
            for p in parts
        ]
    )
    assert (
        again.key == whole.key
        and np.array_equal(again.chosen, whole.chosen)
        and np.array_equal(again.inter, whole.inter)
    )


# which images each process sees; some twice, and the third case leaves one process without any
SHARES = {
    "dealt out": [[0, 2, 4, 6], [1, 3, 5]],
    "repeated to fill": [[0, 2, 4, 6], [1, 3, 5, 0]],
    "one idle": [[0, 1, 2, 3, 4, 5, 6], []],
    "repeated within": [[0, 0, 1, 2, 2], [3, 4, 5, 6, 6, 2]],
}


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name, shares in SHARES.items():
        own = records(7).rows(shares[rank]) if shares[rank] else None
        torch.save({k: tuple(v) for k, v in gather(own).items()}, f"{folder}/{name} {rank}.pt")
    torch.save(gather(None), f"{folder}/nothing {rank}.pt")
    dist.destroy_process_group()


@pytest.mark.usefixtures("processes")
def test_two_processes_are_one(tmp_path):
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    expected = tallies_of(records(7))
    for name in SHARES:
        for rank in range(2):
            found = torch.load(Path(tmp_path, f"{name} {rank}.pt"), weights_only=False)
            same({key: Tally(*values) for key, values in found.items()}, expected)
    assert torch.load(Path(tmp_path, "nothing 1.pt"), weights_only=False) == {}


def test_without_processes_a_repeated_sample_counts_once():
    same(gather(records(4).rows([0, 1, 1, 2, 3, 0])), tallies_of(records(4)))
    assert gather(None) == {}
