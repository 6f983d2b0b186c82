"""The routers' decisions as numbers: a row an image.

n = images, L = blocks of the backbone (MiMs), G = groups, E = sub-experts of a group. Three arrays
say all:

    inter   (n, L, G)      weights of the groups, as they enter the sum
    gates   (n, L, G, E)   softmax of the Intra routers, before the selection
    chosen  (n, L, G, E)   1 where the sub-expert worked on the image, 0 where not; of an image in
    tiles the share of its tiles
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.mim import choosing


class Choices(NamedTuple):
    """`inter`, `gates` and `chosen` (see above) of a batch as float32 tensors on the device of the
    decisions.
    """

    inter: Tensor
    gates: Tensor
    chosen: Tensor

    def mean(self) -> "Choices":
        """Returns the mean of all rows as one row: an image from its tiles."""
        return Choices(*(part.mean(0, keepdim=True) for part in self))


def choices_of(decisions: Decisions) -> Choices:
    """Returns the three arrays of a batch of decisions, a row an image or tile.

    A sub-expert of a group that a top-1 Inter router left out did not work on the image, whatever
    its own router says.
    """
    blocks, groups = len(decisions), len(decisions[0].intra)
    inter = torch.stack([mim.inter.weights for mim in decisions], 1).float()
    logits = torch.stack([router.logits for mim in decisions for router in mim.intra], 1).float()
    # one by one: groups whose sub-experts are forced may select other numbers of them
    routers = [router for mim in decisions for router in mim.intra]
    chosen = torch.stack([choosing(router).T.float() for router in routers], 1)
    chosen = chosen.view(len(logits), blocks, groups, -1)
    if decisions[0].inter.selected.shape[1] < groups:
        asked = torch.zeros_like(inter).scatter_(
            -1, torch.stack([mim.inter.selected for mim in decisions], 1), 1.0
        )
        chosen = chosen * asked[..., None]
    return Choices(inter, logits.softmax(-1).view_as(chosen), chosen)


@dataclass
class Records:
    """Images with the routers' decisions about them.

    Args:
        key: (id, seed) of each image; the same key is the same sample, however often a sampler
            hands it out.
        degradation: of each image, such as "01Blur".
        inter: (n, L, G) float32.
        gates: (n, L, G, E) float32.
        chosen: (n, L, G, E) float32.
    """

    key: list[tuple[str, int]]
    degradation: list[str]
    inter: np.ndarray
    gates: np.ndarray
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.key)

    def rows(self, which: list[int]) -> "Records":
        """Returns some of the images."""
        return Records(
            [self.key[i] for i in which],
            [self.degradation[i] for i in which],
            self.inter[which],
            self.gates[which],
            self.chosen[which],
        )

    def of(self, degradation: str) -> "Records":
        """Returns the images of one degradation."""
        return self.rows([i for i, name in enumerate(self.degradation) if name == degradation])

    def without(self, seen: set[tuple[str, int]]) -> "Records":
        """Returns each key once, and none of those in `seen`."""
        taken, kept = set(seen), []
        for row, key in enumerate(self.key):
            if key not in taken:
                taken.add(key)
                kept.append(row)
        return self if len(kept) == len(self) else self.rows(kept)


def records_of(batches: list[tuple[list[tuple[str, int]], list[str], Choices]]) -> Records:
    """Returns records of (keys, degradations, choices) of several batches, at least one."""
    keys, names, choices = zip(*batches, strict=True)
    parts = [torch.cat(part).cpu().numpy() for part in zip(*choices, strict=True)]
    return Records(
        [key for some in keys for key in some], [name for some in names for name in some], *parts
    )
