"""Asking the routers of a branch about the LQ images of a data set, without restoring them."""

from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from lit_mimdit.data.alike import alike
from lit_mimdit.data.image_io import to_tensor
from lit_mimdit.data.layouts import Pair
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.routing.records import Records, choices_of, records_of
from lit_mimdit.routing.severity import middle

BATCH = 16  # images of one size asked about at once


def limited(pairs: list[Pair], limit: int | None) -> list[Pair]:
    """Returns the first `limit` pairs of each degradation."""
    seen: dict[str, int] = {}
    kept = []
    for pair in pairs:
        seen[pair.degradation] = seen.get(pair.degradation, 0) + 1
        if limit is None or seen[pair.degradation] <= limit:
            kept.append(pair)
    return kept


def batches(pairs: list[Pair], crop: int | None) -> Iterator[tuple[list[Pair], np.ndarray]]:
    """Neighbouring pairs with LQ images (B, H, W, 3) of one size, at most BATCH at a time."""
    read = ((pair, middle(pair.lq, crop)) for pair in pairs)
    for some in alike(read, BATCH, lambda one: (one[1].shape, one[1].dtype)):
        yield [pair for pair, _ in some], np.stack([image for _, image in some])


def collect(restorer: Restorer, pairs: list[Pair], crop: int | None, name: str) -> Records:
    """Returns the decisions about the LQ image of each pair, in their order; `name` stands before
    the progress bar.
    """
    parts = []
    with tqdm(total=len(pairs), desc=name, unit="image") as bar:
        for some, images in batches(pairs, crop):
            lq = torch.stack([to_tensor(image) for image in images])
            for pair, decisions in zip(some, restorer.route(lq), strict=True):
                parts.append(([(pair.id, 0)], [pair.degradation], choices_of(decisions).mean()))
            bar.update(len(some))
    return records_of(parts)
