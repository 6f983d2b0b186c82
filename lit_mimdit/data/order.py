"""Decides which samples a process sees, and when.

All functions here are pure, of (seed, epoch, cluster shape), so that a run can stop anywhere and go
on.

Nothing here depends on speed, on workers, or on random state. Batch b of epoch e on rank r is the
same set of indices whenever it is asked for.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
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
    """Order of all samples in an epoch, (samples,) int64.

    It is a permutation drawn from (seed, epoch).
    """
    if not shuffle:
        return np.arange(samples)
    return np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(samples)


def batch_indices(
    order: np.ndarray, batch: int, batch_size: int, cluster: Cluster, start: int = 0
) -> np.ndarray:
    """Returns what one rank gets of global batch number `batch`: the next world_size * batch_size
    samples, dealt out in turn.

    All ranks together see the samples that a single process with the same global batch would see,
    in one batch. `start`: samples of the order that are left out, because they were seen before the
    run was interrupted.
    """
    start += batch * batch_size * cluster.world_size
    return order[start : start + batch_size * cluster.world_size][
        cluster.rank :: cluster.world_size
    ]


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """63-bit seed of everything random about a sample in an epoch.

    That is its crop, flips, diffusion noise and time.
    """
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Position:
    """The progress of training.

    The step that comes next is the first that takes none of these samples.

    Args:
        epoch: the epoch that the last step belongs to, or the next one.
        samples: samples of that epoch's order that steps have taken, over all processes.
        steps: optimizer steps that have taken them.
    """

    epoch: int = 0
    samples: int = 0
    steps: int = 0


class EpochSampler:
    """Batches of (epoch, place) for one rank. Lightning calls `set_epoch`.

    Args:
        samples: size of the data set.
        batch_size: samples a batch on this rank.
        seed: of the order.
        shuffle: false keeps the order of the data set.
        drop_last: leave out the rest of an epoch that fills no whole optimizer step. For training:
            every step takes as many samples, and another epoch leaves out other samples.
        cluster: this process's place.
        order: places of an epoch (mixing.py); without it, a permutation of all samples.
        accumulate: batches of an optimizer step.
        same: every epoch is epoch 0, with its order and its seeds (overfit_batches).
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
        accumulate: int = 1,
        same: bool = False,
    ) -> None:
        self.share = batch_size * cluster.world_size  # samples of a batch over all processes
        self.step_share = self.share * accumulate  # samples of an optimizer step
        if drop_last and samples < self.step_share:
            raise ValueError(
                f"the training set has {samples} pairs, one step over all processes takes"
                f" {self.step_share}: lower data.batch_size or add pairs"
            )
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.cluster = cluster
        self.accumulate, self.same = accumulate, same
        self.order = order or (lambda epoch: epoch_order(samples, epoch, seed, shuffle))
        self.samples = len(order(0)) if order is not None else samples  # of an epoch
        self.epoch, self.begin = 0, Position()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def begin_at(self, position: Position) -> None:
        """Makes a resumed run go on behind `position`, or with the next epoch if no whole step is
        left of this one. The position does not depend on how many samples a step took so far.
        """
        if not self.batches(position.samples):
            position = Position(position.epoch + 1)
        self.begin, self.epoch = position, position.epoch

    @property
    def start(self) -> Position:
        """The position in front of this epoch's first batch of this run."""
        return self.begin if self.begin.epoch == self.epoch else Position(self.epoch)

    def batches(self, start: int) -> int:
        """Batches of the epoch behind its first `start` samples; whole steps if `drop_last`."""
        left = max(0, self.samples - start)
        if self.drop_last:
            return left // self.step_share * self.accumulate
        return -(-left // self.share)

    def __len__(self) -> int:
        """Batches of this epoch, with those that were taken before the run was resumed."""
        return self.start.steps * self.accumulate + self.batches(self.start.samples)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, start = 0 if self.same else self.epoch, self.start.samples
        order = self.order(epoch)
        for batch in range(self.batches(start)):
            places = batch_indices(order, batch, self.batch_size, self.cluster, start)
            if len(places):
                yield [(epoch, int(place)) for place in places]


class ResumableLoader(DataLoader):
    """A DataLoader that knows how many samples of the epoch the optimizer's steps have taken.

    It counts over all ranks. Lightning saves and restores the count with a checkpoint.

    The state depends neither on the rank nor on the number of ranks. Prefetching workers do not
    count, nor do batches whose gradients still wait for the rest of their step: a resumed run
    takes these again. Another number of ranks, batch size or accumulation goes on with the very
    next sample of the same order.
    """

    def __init__(self, dataset: Any, sampler: EpochSampler, **options: Any) -> None:
        super().__init__(dataset, batch_sampler=_WithSetEpoch(sampler), **options)
        self.order = sampler
        self._delivered, self._epoch = 0, 0  # batches handed to the training loop, of this epoch

    def __iter__(self) -> Iterator[Any]:
        self._delivered, self._epoch = 0, self.order.epoch
        if self.num_workers:
            keep_freed_memory()  # batches are copied in this process, and let go
        for batch in copied(super().__iter__()):
            self._delivered += 1
            yield batch

    @property
    def position(self) -> Position:
        """The position behind the last whole step."""
        start, order = self.order.start, self.order
        steps = self._delivered // order.accumulate if self._epoch == order.epoch else 0
        return Position(order.epoch, start.samples + steps * order.step_share, start.steps + steps)

    def state_dict(self) -> dict[str, int]:
        return asdict(self.position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        samples = state.get("samples")
        if samples is None:  # early checkpoints counted batches
            samples = state["delivered"] * self.order.share
        # early checkpoints do not count steps
        steps = state.get("steps", samples // self.order.step_share)
        self.order.begin_at(Position(state["epoch"], samples, steps))


class _WithSetEpoch:
    """Lightning looks for `batch_sampler.sampler.set_epoch`; here both are the same object."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler
        self.batch_size = sampler.batch_size
        self.drop_last = True

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)


def pairs_at_once(batch_size: int, micro_batch: int | None, processes: int, accumulate: int) -> int:
    """Returns how many training pairs a process takes at once for steps of `batch_size`.

    Raises ValueError if none is right.
    """
    micro = micro_batch or batch_size // (processes * accumulate)
    if micro * processes * accumulate != batch_size:
        raise ValueError(
            f"data.batch_size is {batch_size}, but {processes} processes x {accumulate} accumulated"
            f" batches x {micro} pairs make {micro * processes * accumulate}: change"
            " data.micro_batch, trainer.accumulate_grad_batches or data.batch_size"
        )
    return micro
