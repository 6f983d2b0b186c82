"""Decides which pairs make an epoch, and in which order.

All functions here are pure, of (seed, epoch) and of the table of the data set, never of speed or
workers.

An order is an int64 array of places.

    place = visit * samples + index

The index is that of a pair. The visit says how many times this epoch has had that pair before,
which is always 0 in the natural mixing. A sample's random numbers are drawn from its place, so a
second visit is another crop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Mixing = Literal["natural", "balanced"]
Order = Callable[[int], np.ndarray]  # epoch -> places


def _draw(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(list(entropy)))


@dataclass(frozen=True)
class Table:
    """The facts about n pairs that the order depends on.

    group: (n,) number of each pair's degradation.
    shard: (n,) number of the file each pair lies in; None for a folder of images.
    """

    group: np.ndarray
    shard: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.group)


def shuffled(
    members: np.ndarray, shard: np.ndarray | None, window: int | None, draw: np.random.Generator
) -> np.ndarray:
    """Returns a permutation of `members` (m,).

    With a window, shards come in drawn order, and `window` of them at a time are mixed pair by
    pair. A reader then needs no more than that many shards at once. Without (None), all pairs are
    mixed.
    """
    if window is None or shard is None:
        return draw.permutation(members)
    present = np.unique(shard[members])
    turn = np.empty(present.max() + 1, np.int64)
    turn[draw.permutation(present)] = np.arange(len(present))
    mixed = draw.permutation(
        members
    )  # then a stable sort by window: inside one, the drawn order stays
    return mixed[np.argsort(turn[shard[mixed]] // window, kind="stable")]


def natural(table: Table, window: int | None, seed: int) -> Order:
    """Returns every pair once an epoch."""

    def order(epoch: int) -> np.ndarray:
        return shuffled(np.arange(len(table)), table.shard, window, _draw(seed, epoch))

    return order


def balanced(table: Table, window: int | None, seed: int) -> Order:
    """Returns every degradation equally often.

    Every stretch of as many samples as there are degradations has each of them once.

    With n pairs of k degradations an epoch has ceil(n / k) samples of each. The pairs of a
    degradation come in passes, each pass all of them in another order. An epoch goes on where the
    one before stopped. So over a run no pair is more than one pass ahead of another of its
    degradation.
    """
    names = np.unique(table.group)
    members = [np.flatnonzero(table.group == name) for name in names]
    share = -(-len(table) // len(names))

    def stream(kind: int, epoch: int) -> np.ndarray:
        """Returns the `share` places of a degradation in an epoch."""
        own, place = members[kind], epoch * share
        passes = range(place // len(own), (place + share - 1) // len(own) + 1)
        drawn = [
            shuffled(own, table.shard, window, _draw(seed, int(names[kind]), number))
            for number in passes
        ]
        start = place - passes[0] * len(own)
        indices = np.concatenate(drawn)[start : start + share]
        return _visits(indices) * len(table) + indices

    def order(epoch: int) -> np.ndarray:
        columns = np.stack(
            [stream(kind, epoch) for kind in range(len(names))], axis=1
        )  # (share, k)
        return _draw(seed, epoch, len(names)).permuted(columns, axis=1).reshape(-1)

    return order


def _visits(indices: np.ndarray) -> np.ndarray:
    """Returns how many times each entry occurred before."""
    by_value = np.argsort(indices, kind="stable")
    ordered = indices[by_value]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    starts = np.maximum.accumulate(np.where(first, np.arange(len(ordered)), 0))
    visits = np.empty(len(indices), np.int64)
    visits[by_value] = np.arange(len(ordered)) - starts
    return visits


def training_order(table: Table, mixing: Mixing, window: int | None, seed: int) -> Order:
    """Returns the order of a data set by its configuration."""
    return {"natural": natural, "balanced": balanced}[mixing](table, window, seed)
