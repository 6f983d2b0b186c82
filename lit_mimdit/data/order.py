"""Which samples a process sees, and when: pure functions of (seed, epoch, cluster shape), so that a
run can stop anywhere and go on.

Nothing here depends on speed, on workers, or on random state: batch b of epoch e on rank r is the
same set of indices whenever it is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from lit_mimdit.data.buffers import copied
from lit_mimdit.data.memory import keep_freed_memory
from lit_mimdit.data.mixing import Order


@dataclass(frozen=True)
class Cluster:
    """This process's place among the training processes."""

    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is not among {self.world_size} processes")


def epoch_order(samples: int, epoch: int, seed: int, shuffle: bool) -> np.ndarray:
    """Order of all samples in an epoch, (samples,) int64:

    a permutation drawn from (seed, epoch).
    """
    if not shuffle:
        return np.arange(samples)
    return np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(samples)


def batch_indices(
    order: np.ndarray, batch: int, batch_size: int, cluster: Cluster, start: int = 0
) -> np.ndarray:
    """What one rank gets of global batch number `batch`: the next world_size * batch_size samples,
    dealt out in turn.

    All ranks together see the samples that a single process with the same global batch would see,
    in one batch. `start`: samples of the order that are left out, because they were seen before the
    run was interrupted.
    """
    start += batch * batch_size * cluster.world_size
    return order[start : start + batch_size * cluster.world_size][
        cluster.rank :: cluster.world_size
    ]


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """63-bit seed of everything random about a sample in an epoch:

    crop, flips, diffusion noise and time.
    """
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0] >> 1)


class EpochSampler:
    """Batches of (epoch, place) for one rank. Lightning calls `set_epoch`.

    Args:
        samples: size of the data set.
        batch_size: samples a batch on this rank.
        seed: of the order.
        shuffle: false keeps the order of the data set.
        drop_last: leave out the last, smaller batch (training: all ranks need as many batches;
            another epoch leaves out other samples).
        cluster: this process's place.
        order: places of an epoch (mixing.py); without it, a permutation of all samples.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        cluster: Cluster,
        order: Order | None = None,
    ) -> None:
        self.share = batch_size * cluster.world_size
        if drop_last and samples < self.share:
            raise ValueError(
                f"the training set has {samples} pairs, one step over all processes takes"
                f" {self.share}: lower data.batch_size or add pairs"
            )
        self.batch_size, self.drop_last, self.cluster = batch_size, drop_last, cluster
        self.order = order or (lambda epoch: epoch_order(samples, epoch, seed, shuffle))
        self.samples = len(order(0)) if order is not None else samples  # of an epoch
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def batches(self, start: int) -> int:
        """Batches of the epoch behind its first `start` samples."""
        left = self.samples - start
        return left // self.share if self.drop_last else -(-left // self.share)

    def __len__(self) -> int:
        return self.batches(0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, start = self.order(self.epoch), self.start
        for batch in range(self.batches(start)):
            places = batch_indices(order, batch, self.batch_size, self.cluster, start)
            if len(places):
                yield [(self.epoch, int(place)) for place in places]


class ResumableLoader(DataLoader):
    """A DataLoader that knows how many samples of the epoch all ranks were given; Lightning saves
    and restores that with a checkpoint.

    The state depends neither on the rank nor on the number of ranks, and prefetching workers do not
    count: only what was handed to the training loop does. Another number of ranks goes on with the
        very next sample of the same order.
    """

    def __init__(self, dataset: Any, sampler: EpochSampler, **options: Any) -> None:
        super().__init__(dataset, batch_sampler=_WithSetEpoch(sampler), **options)
        self.order, self.seen, self.resume = sampler, 0, None

    def __iter__(self) -> Iterator[Any]:
        resume, self.resume = self.resume, None
        # a checkpoint made when the epoch's last batch was out continues with the next epoch, from
        # its first batch
        self.order.start = (
            resume["samples"] if resume and resume["epoch"] == self.order.epoch else 0
        )
        self.seen = self.order.start
        if self.num_workers:
            keep_freed_memory()  # batches are copied in this process, and let go
        for batch in copied(super().__iter__()):
            self.seen += self.order.share
            yield batch
        self.order.start = 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.order.epoch, "samples": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if "delivered" in state:  # a checkpoint of before this counted samples
            state = {"epoch": state["epoch"], "samples": state["delivered"] * self.order.share}
        self.resume = dict(state)


class _WithSetEpoch:
    """Lightning looks for `batch_sampler.sampler.set_epoch`; here both are the same object."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, sampler.batch_size, True

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)
