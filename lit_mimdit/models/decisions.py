"""The decisions of all MiMs' routers about a batch, and the rows of it."""

from typing import NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from lit_mimdit.models.routers import Routing


class MiMRouting(NamedTuple):
    """Decisions of one MiM: of its Inter router, and of the Intra router of every group."""

    inter: Routing
    intra: tuple[Routing, ...]


Decisions = tuple[MiMRouting, ...]  # of all MiMs, a row an image or tile


def rows_of(decisions: Decisions, batch: int) -> list[Decisions]:
    """Returns the decisions about each image of a batch, batches of 1; empty ones of a network
    without routers.
    """
    leaves, spec = tree_flatten(decisions)
    columns = [leaf.split(1) for leaf in leaves]
    return [tree_unflatten([column[row] for column in columns], spec) for row in range(batch)]


def join_rows(parts: list[Decisions]) -> Decisions:
    """Returns the decisions of several batches as those of one."""
    return tree_map(lambda *tensors: torch.cat(tensors), *parts)
