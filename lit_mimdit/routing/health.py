"""Tells whether every expert is used and every router chooses.

It gives effective numbers of experts, dead experts and collapsed routers.
"""

from dataclasses import dataclass

import numpy as np

from lit_mimdit.routing.tally import Tally, entropy

SHOWN = 6  # places that a sentence names


# N = exp(H(p)), the perplexity: as many equally used experts would have this entropy
# (Hill, Ecology 54, 1973, order 1)
def effective_number(p: np.ndarray) -> np.ndarray:
    """Returns the effective number of experts of shares `p` (..., E), which need not sum to 1.

    It is from 1 to E, and 0 where nothing was chosen.
    """
    whole = p.sum(-1, keepdims=True)
    used = np.exp(entropy(p / np.where(whole > 0, whole, 1.0)))
    return np.where(whole[..., 0] > 0, used, 0.0)


@dataclass
class Health:
    """A report of how the experts are used.

    inter_effective: (L,), groups that the mean Inter weights amount to, 1 to G.
    intra_effective: (L, G), sub-experts that the choices amount to, K to E.
    dead: (block, group, sub-expert) that hardly any image chose.
    collapsed: (block, group), group None for the Inter router: routers that send all images the
        same way although they could choose.
    """

    inter_effective: np.ndarray
    intra_effective: np.ndarray
    dead: list[tuple[int, int, int]]
    collapsed: list[tuple[int, int | None]]

    def sentences(self, groups: list[str]) -> list[str]:
        """Returns what a user should know, a line each; none if all is well."""
        dead = [f"block {block} {groups[group]} {expert}" for block, group, expert in self.dead]
        collapsed = [
            f"block {block} {'Inter' if group is None else groups[group]}"
            for block, group in self.collapsed
        ]
        texts = {
            "dead sub-experts, which hardly any image chooses": dead,
            "collapsed routers, which send all images the same way": collapsed,
        }
        return [
            f"{text} ({len(some)}): {', '.join(some[:SHOWN])}{', ...' if len(some) > SHOWN else ''}"
            for text, some in texts.items()
            if some
        ]


def enough(tally: Tally, dead_below: float) -> bool:
    """Returns whether a share of `dead_below` is at least one image.

    Of fewer images nothing can be said.
    """
    return bool(tally.images * dead_below >= 1)


# A router that uses K of E experts for an image has N between K and E. It has collapsed if (N - K)
# / (E - K) < limit.
def health_of(tally: Tally, top_k: int, dead_below: float, collapse_below: float) -> Health:
    """Judge the experts by a tally of many images.

    Args:
        tally: of all degradations together.
        top_k: K of the Intra routers; E if they are dense.
        dead_below: a sub-expert that a smaller share of the images chose is dead.
        collapse_below: a router whose effective number of experts, from the fewest it can use (0)
            to all (1), is smaller has collapsed.
    """
    shares = tally.shares
    groups, experts = shares.shape[1:]
    inter, intra = effective_number(tally.mean_inter), effective_number(shares)
    collapsed: list[tuple[int, int | None]] = []
    for block in range(len(shares)):
        if groups > 1 and (inter[block] - 1) / (groups - 1) < collapse_below:
            collapsed.append((block, None))
        if experts > top_k:
            spare = (intra[block] - top_k) / (experts - top_k)
            collapsed += [
                (block, int(group))
                for group in np.flatnonzero((intra[block] > 0) & (spare < collapse_below))
            ]
    dead = [
        (int(block), int(group), int(expert))
        for block, group, expert in np.argwhere(shares < dead_below)
    ]
    return Health(inter, intra, dead, collapsed)
