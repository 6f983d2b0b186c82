"""A data set whose samples count page faults; its process needs nothing else of the tests."""

import resource

import numpy as np
from torch.utils.data import Dataset


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
