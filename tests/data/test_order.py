"""Who sees which sample, and when: for any cluster, any epoch, any place to go on from."""

import itertools

import numpy as np
import pytest
import torch

from lit_mimdit.data.order import (
    Cluster,
    EpochSampler,
    Position,
    ResumableLoader,
    batch_indices,
    epoch_order,
    sample_seed,
)

SHAPES = [
    (10, 1, 1),
    (10, 3, 1),
    (13, 2, 2),
    (64, 4, 4),
    (100, 1, 7),
    (7, 5, 3),
]  # samples, batch a rank, ranks


def epoch_of(
    samples: int, batch: int, ranks: int, epoch: int, drop_last: bool
) -> list[list[list[int]]]:
    """What each rank gets, batch by batch."""
    everyone = []
    for rank in range(ranks):
        sampler = EpochSampler(
            samples, batch, seed=3, shuffle=True, drop_last=drop_last, cluster=Cluster(ranks, rank)
        )
        sampler.set_epoch(epoch)
        assert all(item[0] == epoch for items in sampler for item in items)
        everyone.append([[index for _, index in items] for items in sampler])
    return everyone


@pytest.mark.parametrize("samples, batch, ranks", SHAPES)
def test_every_sample_exactly_once_an_epoch(samples, batch, ranks):
    for epoch in range(3):
        seen = [
            index
            for rank in epoch_of(samples, batch, ranks, epoch, drop_last=False)
            for items in rank
            for index in items
        ]
        assert sorted(seen) == list(range(samples))


@pytest.mark.parametrize(
    "samples, batch, ranks", [shape for shape in SHAPES if shape[0] >= shape[1] * shape[2]]
)
def test_training_gives_every_rank_as_many_batches_and_leaves_out_the_rest(samples, batch, ranks):
    everyone = epoch_of(samples, batch, ranks, 0, drop_last=True)
    assert {len(rank) for rank in everyone} == {samples // (batch * ranks)}
    seen = [index for rank in everyone for items in rank for index in items]
    assert len(set(seen)) == len(seen) == samples // (batch * ranks) * batch * ranks


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_together_see_what_one_process_sees(ranks):
    alone = epoch_of(64, 8, 1, epoch=5, drop_last=True)[0]
    shares = epoch_of(64, 8 // ranks, ranks, epoch=5, drop_last=True)
    for number, batch in enumerate(alone):
        assert sorted(batch) == sorted(index for rank in shares for index in rank[number])
        assert [rank[number][0] for rank in shares] == batch[:ranks], "dealt out in turn"


def test_the_order_differs_by_epoch_and_seed_and_nothing_else():
    one = epoch_order(50, epoch=0, seed=0, shuffle=True)
    assert sorted(one) == list(range(50))
    assert np.array_equal(one, epoch_order(50, epoch=0, seed=0, shuffle=True))
    assert not np.array_equal(one, epoch_order(50, epoch=1, seed=0, shuffle=True))
    assert not np.array_equal(one, epoch_order(50, epoch=0, seed=1, shuffle=True))
    assert np.array_equal(epoch_order(50, epoch=3, seed=1, shuffle=False), np.arange(50))
    assert batch_indices(np.arange(10), 1, 2, Cluster(2, 1)).tolist() == [5, 7]


def test_sample_seeds_differ_by_everything_and_fit_a_signed_integer():
    seeds = {sample_seed(s, e, i) for s in range(3) for e in range(3) for i in range(50)}
    assert len(seeds) == 450 and all(0 <= seed < 2**63 for seed in seeds)


def test_impossible_shapes():
    with pytest.raises(ValueError, match="rank 2 is not among 2 processes"):
        Cluster(2, 2)
    with pytest.raises(
        ValueError,
        match=(
            "has 5 pairs, one step over all processes takes 6: lower data.batch_size or add pairs"
        ),
    ):
        EpochSampler(5, 3, 0, True, True, Cluster(2, 0))


class Numbers(torch.utils.data.Dataset):
    def __getitem__(self, item: tuple[int, int]) -> torch.Tensor:
        drawn = np.random.default_rng(sample_seed(0, *item)).integers(99, size=4)
        return torch.cat([torch.tensor(item), torch.from_numpy(drawn)])


def loader(workers: int) -> ResumableLoader:
    sampler = EpochSampler(23, 3, seed=1, shuffle=True, drop_last=True, cluster=Cluster(2, 1))
    return ResumableLoader(Numbers(), sampler, num_workers=workers)


def epochs(made: ResumableLoader, first: int, count: int) -> list[torch.Tensor]:
    """As Lightning does: the epoch is set, then the loader iterated."""
    batches = []
    for epoch in range(first, first + count):
        made.batch_sampler.sampler.set_epoch(epoch)
        batches += list(made)
    return batches


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("delivered", [1, 2])
def test_a_resumed_loader_delivers_exactly_the_rest(workers, delivered):
    whole = epochs(loader(0), 0, 3)
    assert len(whole) == 9 and torch.stack(whole)[:, :, 1].unique().numel() > 9
    broken = loader(workers)
    broken.batch_sampler.sampler.set_epoch(1)
    iterator = iter(broken)
    for _ in range(delivered):
        next(iterator)
    state = broken.state_dict()  # workers are batches ahead: they do not count
    assert state == {"epoch": 1, "samples": 6 * delivered, "steps": delivered}
    resumed = loader(workers)
    resumed.load_state_dict(state)
    rest = epochs(resumed, 1, 2)
    assert len(rest) == 6 - delivered
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[3 + delivered :], strict=True))


def test_a_run_can_be_interrupted_twice_in_an_epoch():
    whole, made, state = epochs(loader(0), 0, 3), loader(0), {"epoch": 1, "samples": 6}
    made.load_state_dict(state)
    made.batch_sampler.sampler.set_epoch(1)
    next(iter(made))
    assert made.state_dict() == {"epoch": 1, "samples": 12, "steps": 2}
    again = loader(0)
    again.load_state_dict(made.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(epochs(again, 1, 2), whole[5:], strict=True))


def test_the_state_at_the_end_of_an_epoch_goes_on_with_the_next():
    whole, ended = epochs(loader(0), 0, 3), loader(0)
    epochs(ended, 0, 1)
    assert ended.state_dict() == {"epoch": 0, "samples": 18, "steps": 3}
    resumed = loader(0)
    resumed.load_state_dict(ended.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(epochs(resumed, 1, 2), whole[3:], strict=True))


def test_an_epoch_that_was_left_early_starts_anew():
    """fit with limit_train_batches, or the next trainer.fit with the same loader."""
    made = loader(0)
    for _ in made:
        break
    assert len(epochs(made, 1, 1)) == len(made) == 3


CHUNKS = [(batch, n, ranks) for batch in (4, 8, 16) for n in (1, 2, 4) for ranks in (1, 2)]


def run_on(
    state: dict | None, shape: tuple[int, int, int], steps: int, samples: int
) -> tuple[dict, list]:
    """What `steps` optimizer steps take from `state` on, without Lightning and without workers:
    the epoch goes on until the loader's samples end. Returns the new state and the steps' items.
    """
    batch, accumulate, ranks = shape
    size = batch // (accumulate * ranks)
    sampler = [
        EpochSampler(samples, size, 1, True, True, Cluster(ranks, rank), accumulate=accumulate)
        for rank in range(ranks)
    ]
    if state is not None:
        for one in sampler:
            one.begin_at(Position(**state))
    taken, epoch = [], sampler[0].epoch
    while True:
        for one in sampler:
            one.set_epoch(epoch)
        batches = [list(one) for one in sampler]
        start = sampler[0].start
        assert len(sampler[0]) == start.steps * accumulate + len(batches[0])
        for step in range(len(batches[0]) // accumulate):
            part = slice(step * accumulate, (step + 1) * accumulate)
            taken.append(sorted(i for rank in batches for items in rank[part] for i in items))
            if len(taken) == steps:
                done = step + 1
                return {
                    "epoch": epoch,
                    "samples": start.samples + done * batch,
                    "steps": start.steps + done,
                }, taken
        epoch += 1


@pytest.mark.parametrize("samples", [16, 23])
def test_all_triples_of_cuts_give_every_step_what_the_uninterrupted_run_gives_it(samples):
    """Every chain of up to three cuts in 3 epochs of every shape, and at their ends."""
    for shape in CHUNKS:
        if shape[0] < shape[1] * shape[2] or samples < shape[0]:
            continue
        total = 3 * (samples // shape[0])
        end, whole = run_on(None, shape, total, samples)
        halves = {}
        for first in range(1, total):
            halves[first] = run_on(None, shape, first, samples)
        for cuts in (c for n in (1, 2, 3) for c in itertools.combinations(range(1, total), n)):
            if len(cuts) == 3 and total > 9:  # the first and last epochs' cuts suffice
                continue
            state, taken = halves[cuts[0]]
            for here, there in itertools.pairwise((*cuts, total)):
                state, more = run_on(state, shape, there - here, samples)
                taken = taken + more
            assert (state, taken) == (end, whole), (shape, cuts)


def test_every_sample_of_an_epoch_once_whatever_changes_at_every_cut():
    """48 samples: two shapes for one step each, then another for the rest of the epoch."""
    for one, two, rest in itertools.product(CHUNKS[::2], CHUNKS[1::3], CHUNKS):
        if any(batch < n * ranks for batch, n, ranks in (one, two, rest)):
            continue
        left = 48 - one[0] - two[0]
        state, taken = run_on(None, one, 1, 48)
        state, more = run_on(state, two, 1, 48)
        steps = left // rest[0]
        end, others = run_on(state, rest, steps, 48) if steps else (state, [])
        seen = [item for step in taken + more + others for item in step]
        assert len(set(seen)) == len(seen) == 48 - left % rest[0]
        assert {epoch for epoch, _ in seen} == {0} and end["steps"] == 2 + steps
        _, (after,) = run_on(end, rest, 1, 48)
        assert {epoch for epoch, _ in after} == {1}, "the next step is of the next epoch"
