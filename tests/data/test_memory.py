"""Loader processes keep the memory of decoded images."""

import platform

import pytest
from kit.page_faults import PageFaults
from torch.utils.data import DataLoader

from lit_mimdit.data.datamodule import FoundIRDataModule
from lit_mimdit.data.memory import keep_freed_memory


@pytest.mark.usefixtures("processes")
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
