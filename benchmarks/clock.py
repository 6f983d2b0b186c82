"""How the benchmarks take time and memory, on CPUs and GPUs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")


def unit(device: torch.device) -> str:
    """What `timed` counts."""
    return "GPU s" if device.type == "cuda" else "CPU s"


def timed(device: torch.device, compute: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds and result of `compute`.

    Of a CPU the process's own seconds, which other programs disturb less than the clock. Of a GPU
    the time from an idle device to an idle device, waiting for the host included: that is what a
    user waits.
    """
    if device.type != "cuda":
        start = time.process_time()
        result = compute()
        return time.process_time() - start, result
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = compute()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def peak(device: torch.device) -> float:
    """Peak of the memory in GiB.

    On a GPU it is the most that PyTorch had allocated, else the most resident memory of the
    process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU thread(s)"
    )
