"""Keeps freed memory with a process that loads, and with one that is handed batches.

glibc gives the blocks of a decoded image back to the system as soon as they are freed. The next
image then pays for mapping every page of them again. That takes 3 of 15 ms of CPU time a pair of
tiles of 512 px (experiments/LOG.md).
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT, _FROM_HEAP = (
    256 << 20,
    32 << 20,
)  # bytes: free memory that is kept, and the largest block that glibc takes from the heap


def keep_freed_memory(worker: int = 0) -> None:
    """Keeps freed memory with this process.

    It also serves as `worker_init_fn` of a DataLoader.

    Does nothing where there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
