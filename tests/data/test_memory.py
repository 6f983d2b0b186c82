"""Loader processes keep the memory of decoded images."""

import platform
import resource

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from lit_mimdit.data.datamodule import FoundIRDataModule
from lit_mimdit.data.memory import keep_freed_memory


class PageFaults(Dataset):
    """How many pages the system maps while an image of 12 MB is allocated, written and freed,
    twenty times.
    """

    def __getitem__(self, index: int) -> int:
        for number in range(22):
            if number == 2:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            kept = [np.ones(3 << 20, np.uint8) for _ in range(4)]
            del kept
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def __len__(self) -> int:
        return 1


@pytest.mark.process
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_freed_memory_is_kept_and_used_again():
    # fresh processes: one that is forked from this one takes over how much memory this one has
    # learned to keep
    plain, kept = (
        int(
            next(
                iter(
                    DataLoader(
                        PageFaults(),
                        num_workers=1,
                        worker_init_fn=init,
                        multiprocessing_context="spawn",
                    )
                )
            )
        )
        for init in (None, keep_freed_memory)
    )
    assert kept < plain / 10 and plain > 10000, (plain, kept)


def test_the_loaders_of_the_data_module_do_so(data_root):
    data = FoundIRDataModule(str(data_root), batch_size=2, crop=16)
    assert {
        getattr(data, f"{split}_dataloader")().worker_init_fn for split in ("train", "val", "test")
    } == {keep_freed_memory}
