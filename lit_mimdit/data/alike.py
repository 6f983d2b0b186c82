"""Batches of what may be computed at once: neighbours that are alike."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def alike(items: Iterable[T], limit: int, kind: Callable[[T], Any]) -> Iterator[list[T]]:
    """Yields neighbours of one kind in their order, at most `limit` at once.

    Args:
        items: any, such as images.
        limit: of a batch, at least 1.
        kind: what the items of a batch have in common, such as their size.
    """
    batch: list[T] = []
    for item in items:
        if batch and (len(batch) == limit or kind(item) != kind(batch[0])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
