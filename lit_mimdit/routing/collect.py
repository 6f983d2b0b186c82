"""Asking the routers of a branch about the LQ images of a data set, without restoring them."""

from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

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
    some: list[tuple[Pair, np.ndarray]] = []
    for pair in pairs:
        image = middle(pair.lq, crop)
        if some and (
            len(some) == BATCH or image.shape != some[0][1].shape or image.dtype != some[0][1].dtype
        ):
            yield [one for one, _ in some], np.stack([picture for _, picture in some])
            some = []
        some.append((pair, image))
    if some:
        yield [one for one, _ in some], np.stack([picture for _, picture in some])


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
