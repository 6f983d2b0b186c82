"""Batches of loader processes in shared memory that is used again.

Fresh pages cost 1.5 of 13 ms of CPU time a pair (experiments/LOG.md).

A worker's k-th batch is asked for when the loader hands out its batch k - p, where p is the
`prefetch_factor`. So when the worker begins to write batch k, batch k - p - 1 has been copied out,
and its buffer is free. Therefore p + 1 buffers in turn are enough, if nothing else keeps them.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import get_worker_info

PREFETCH = 2  # batches that a worker is ahead: the loader's `prefetch_factor`
Stack = Callable[[str, list[Tensor]], Tensor]


def stacked(name: str, tensors: list[Tensor]) -> Tensor:
    """Returns tensors of one dtype, stacked in new memory; `name` tells where else one could put
    them.
    """
    return torch.stack(tensors)


class SharedBuffers:
    """`collate_fn` of a loader with `prefetch_factor` PREFETCH whose batches go through `copied`.

    Args:
        collate: (samples, stack) -> batch, with `stack(name, tensors)` for what is stacked.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]], Stack], dict[str, Any]]) -> None:
        self.collate, self.number = collate, -1
        self.buffers: list[dict[str, Tensor]] = [{} for _ in range(PREFETCH + 1)]

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        if get_worker_info() is None:
            return self.collate(samples, stacked)
        self.number += 1
        batch = self.collate(samples, self._stack_into_buffer)
        # an array travels in the message itself, a tensor in shared memory of its own: 0.3 ms on
        # each side to hand over its descriptor
        return tree_map_only(
            Tensor, lambda tensor: tensor if tensor.is_shared() else tensor.numpy(), batch
        )

    def _stack_into_buffer(self, name: str, tensors: list[Tensor]) -> Tensor:
        buffers, shape = (
            self.buffers[self.number % len(self.buffers)],
            (
                len(tensors),
                *tensors[0].shape,
            ),
        )
        if (
            name not in buffers
            or buffers[name].shape != shape
            or buffers[name].dtype != tensors[0].dtype
        ):
            buffers[name] = torch.empty(shape, dtype=tensors[0].dtype).share_memory_()
        return torch.stack(tensors, out=buffers[name])


def copied(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches in memory of this process, so that they last. What was pinned has been copied."""
    mapped, shapes = (
        deque(maxlen=64),
        None,
    )  # torch maps a buffer again each time it comes, unless its last mapping is still held
    for batch in batches:
        shared = [
            tensor
            for tensor in tree_leaves(batch)
            if isinstance(tensor, Tensor) and tensor.is_shared()
        ]
        if shapes != (shapes := [tensor.shape for tensor in shared]):
            mapped.clear()  # these are other buffers
        mapped.append(shared)
        batch = tree_map_only(
            Tensor, lambda tensor: tensor.clone() if tensor.is_shared() else tensor, batch
        )
        yield tree_map_only(np.ndarray, torch.from_numpy, batch)
