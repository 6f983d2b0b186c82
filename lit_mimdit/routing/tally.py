"""Sums over images that add up: over batches, over processes, over degradations. What TensorBoard
shows is read from them.

A million images take as much memory as one, and two processes together hold what one process would.
"""

from typing import NamedTuple

import numpy as np
import torch.distributed

from lit_mimdit.routing.records import Records

BINS = 60  # of the histograms over [0, 1]; TensorBoard shows 30


class Tally(NamedTuple):
    """Sums over images (see routing/records.py for L, G, E), all float64.

    images: (), their number.
    inter, inter_squares: (L, G), of the Inter weights and their squares.
    inter_entropy: (L,), of the entropies (nats) of each image's Inter weights.
    gate_entropy: (L, G), of the entropies of its Intra gates.
    gates, gate_squares, chosen: (L, G, E).
    inter_histogram: (L, G, BINS), images by weight, in equal bins of [0, 1].
    gates_histogram: (L, G, E, BINS), likewise.
    """

    images: np.ndarray
    inter: np.ndarray
    inter_squares: np.ndarray
    inter_entropy: np.ndarray
    gate_entropy: np.ndarray
    gates: np.ndarray
    gate_squares: np.ndarray
    chosen: np.ndarray
    inter_histogram: np.ndarray
    gates_histogram: np.ndarray

    def __add__(self, other: "Tally") -> "Tally":  # type: ignore[override]
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def mean_inter(self) -> np.ndarray:
        """(L, G)."""
        return self.inter / self.images

    @property
    def spread_inter(self) -> np.ndarray:
        """Standard deviation over images, (L, G)."""
        return np.sqrt(np.maximum(self.inter_squares / self.images - self.mean_inter**2, 0))

    @property
    def shares(self) -> np.ndarray:
        """Share of the images that each sub-expert worked on, (L, G, E)."""
        return self.chosen / self.images


# H(p) = -sum_e p_e ln p_e, with 0 ln 0 = 0
def entropy(p: np.ndarray) -> np.ndarray:
    """Returns the entropy over the last axis, nats; from 0 (one takes all) to ln E (all alike)."""
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


def histogram(values: np.ndarray) -> np.ndarray:
    """Count how many of (n, ...) in [0, 1] lie in each bin, (..., BINS).

    1 belongs to the last bin.
    """
    flat = values.reshape(len(values), -1)
    index = np.minimum((flat * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(flat.shape[1])
    counts = np.bincount(index.ravel(), minlength=BINS * flat.shape[1])
    return counts.reshape(*values.shape[1:], BINS).astype(np.float64)


def tally_of(records: Records) -> Tally:
    """Returns the sums of some images."""
    inter, gates, chosen = (
        part.astype(np.float64) for part in (records.inter, records.gates, records.chosen)
    )
    return Tally(
        np.array(float(len(records))),
        inter.sum(0),
        (inter**2).sum(0),
        entropy(inter).sum(0),
        entropy(gates).sum(0),
        gates.sum(0),
        (gates**2).sum(0),
        chosen.sum(0),
        histogram(inter),
        histogram(gates),
    )


def tallies_of(records: Records) -> dict[str, Tally]:
    """Returns the sums by degradation, in alphabetical order; FoundIR's names begin with their
    number.
    """
    return {name: tally_of(records.of(name)) for name in sorted(set(records.degradation))}


def join(parts: list[dict[str, Tally]]) -> dict[str, Tally]:
    """Returns tallies by degradation of several places as those of one."""
    names = sorted({name for part in parts for name in part})
    return {name: total([part[name] for part in parts if name in part]) for name in names}


def total(parts: list[Tally]) -> Tally:
    """Returns the sum, of at least one."""
    first, *others = parts
    for other in others:
        first = first + other
    return first


def gather(records: Records | None) -> dict[str, Tally]:
    """Returns tallies by degradation of all processes, the same on each of them; every process must
    call it.

    A sample that several processes saw, or one twice (samplers repeat samples to fill the last
    batch), counts once.

    Args:
        records: of this process; None if it saw no image.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tallies_of(records.without(set())) if records is not None else {}
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    keys: list[list[tuple[str, int]]] = [[]] * world
    torch.distributed.all_gather_object(keys, records.key if records is not None else [])
    seen = {key for some in keys[:rank] for key in some}
    own = records.without(seen) if records is not None else None
    tallies: list[dict[str, Tally]] = [{}] * world
    torch.distributed.all_gather_object(
        tallies, tallies_of(own) if own is not None and len(own) else {}
    )
    return join(tallies)
