"""A process that has computed no gradient yet, and so may be forked into ranks."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def in_fresh_process(function: Callable, *args: Any) -> Any:
    """Call a function of a module in a new process; return its result or raise what it raises.

    PyTorch refuses gradients in a fork of a process that has computed some.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
