"""Reports a sample that cannot be read, and puts another in its place.

The stand-in is a function of (seed, epoch, place, attempt) and the table of the data set. Each rank
replaces its own samples without asking the others, and no batch gets smaller. So all ranks stay in
step, and an interrupted run takes the same stand-in again.
"""

from typing import NamedTuple

import numpy as np

ATTEMPTS = 64  # stand-ins that may be broken in a row
SAME_KIND = 16  # of them, how many are of the same degradation as the broken one


class Fault(NamedTuple):
    """A fault that was met while a sample was read."""

    id: str  # of the pair, or of what else failed ("shard-000001.tar", "cache")
    reason: str
    lost: bool  # the sample could not be used; False: it was read in another way


def stand_in(index: int, attempt: int, entropy: tuple[int, ...], group: np.ndarray) -> int:
    """Returns the index of the pair that takes the place of a broken one.

    The first attempts stay with the same degradation; later ones take any.

    Args:
        index: the broken pair.
        attempt: 0 for the first stand-in, 1 if that was broken too, ...
        entropy: (seed, epoch, place) of the sample.
        group: (n,) number of each pair's degradation.
    """
    draw = np.random.default_rng(np.random.SeedSequence([*entropy, attempt]))
    same = np.flatnonzero(group == group[index]) if attempt < SAME_KIND else np.arange(len(group))
    return int(same[draw.integers(len(same))])
