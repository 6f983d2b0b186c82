"""Batches in shared memory that is used again: nothing that was handed out is written over."""

import os

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from lit_mimdit.data import order
from lit_mimdit.data.buffers import SharedBuffers, copied
from lit_mimdit.data.order import Cluster, EpochSampler, ResumableLoader
from lit_mimdit.data.pairs import collate

PAIRS, BATCH = 48, 4


class Numbered(Dataset):
    """Images whose pixels are their index; from `wide_from` on they are wider."""

    def __init__(self, wide_from: int = PAIRS) -> None:
        self.wide_from = wide_from

    def __getitem__(self, item):
        index = item[1] if isinstance(item, tuple) else item
        image = torch.full((3, 8, 16 if index >= self.wide_from else 8), index, dtype=torch.uint8)
        return {
            "lq": image,
            "gt": 255 - image,
            "degradation": "",
            "id": str(index),
            "dataset": "",
            "seed": index,
        }

    def __len__(self) -> int:
        return PAIRS


def pixels(batches) -> list[tuple[list[int], list[int]]]:
    """What the images of each batch hold, and what they should."""
    return [
        (batch["lq"].flatten(1).float().mean(1).int().tolist(), [int(name) for name in batch["id"]])
        for batch in batches
    ]


@pytest.mark.parametrize("wide_from", [PAIRS, PAIRS // 2])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_last_although_their_buffers_are_used_again(workers, wide_from):
    sampler = EpochSampler(
        PAIRS, BATCH, 0, shuffle=wide_from == PAIRS, drop_last=True, cluster=Cluster()
    )
    loader = ResumableLoader(
        Numbered(wide_from), sampler, num_workers=workers, collate_fn=SharedBuffers(collate)
    )
    for epoch in range(2):
        sampler.set_epoch(epoch)
        kept = list(loader)
        assert len(kept) == PAIRS // BATCH and all(
            found == expected for found, expected in pixels(kept)
        )
        assert all(torch.equal(batch["gt"], 255 - batch["lq"]) for batch in kept)
        assert all(
            torch.equal(batch["seed"], torch.tensor([int(name) for name in batch["id"]]))
            for batch in kept
        )
        assert not any(batch["lq"].is_shared() for batch in kept)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_that_copies_batches_keeps_freed_memory(monkeypatch, workers):
    calls = []
    monkeypatch.setattr(order, "keep_freed_memory", lambda: calls.append(True))
    sampler = EpochSampler(PAIRS, BATCH, 0, shuffle=False, drop_last=True, cluster=Cluster())
    next(
        iter(
            ResumableLoader(
                Numbered(), sampler, num_workers=workers, collate_fn=SharedBuffers(collate)
            )
        )
    )
    assert len(calls) == workers


def test_without_a_copy_they_do_not_last():
    """What the copy is for; and that the buffers are used again at all."""
    loader = DataLoader(Numbered(), BATCH, num_workers=1, collate_fn=SharedBuffers(collate))
    found = pixels(list(loader))
    assert sum(numbers != expected for numbers, expected in found) == PAIRS // BATCH - 3, (
        "the last three, of 2 + 1 buffers, are whole"
    )
    found = pixels(list(copied(iter(loader))))
    assert all(numbers == expected for numbers, expected in found)


def test_a_batch_is_whole_until_the_next_is_asked_for():
    """However long the consumer takes."""
    loader = DataLoader(Numbered(), BATCH, num_workers=2, collate_fn=SharedBuffers(collate))
    for batch in loader:
        os.sched_yield()
        torch.zeros(1 << 22).add_(1)  # the workers run ahead as far as they may
        ((numbers, expected),) = pixels([batch])
        assert numbers == expected
