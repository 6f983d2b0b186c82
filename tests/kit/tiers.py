"""Whether a test may start a Python process: only those of the tier of processes may."""

import multiprocessing.util
import os
import sys

import pytest

_running: list[str] = []  # the test that may start none


def guard(item: pytest.Item) -> None:
    """From now on a Python process is an error, unless the test is marked as one that starts some.

    Forks of a loader's workers are none: they take milliseconds.
    """
    allowed = any(item.get_closest_marker(name) for name in ("process", "slow"))
    _running[:] = [] if allowed else [item.nodeid]


def _refuse(command: list[str]) -> None:
    if _running and "resource_tracker" not in " ".join(command):
        test = _running.pop()
        pytest.fail(
            f"{test} starts a process, {' '.join(command)[:90]}: mark it with pytest.mark.process"
        )


def _audit(event: str, arguments: tuple) -> None:
    if event == "subprocess.Popen" and _running:
        command = arguments[1]
        words = [command] if isinstance(command, str | bytes | os.PathLike) else list(command)
        words = [os.fsdecode(word) for word in words]
        if words[0] == sys.executable and "sys.path" not in words[-1]:
            # typeshed_client, of jsonargparse, asks once where the packages are
            _refuse(words)


_start = multiprocessing.util.spawnv_passfds  # of spawn and of the forkserver


def _spawn(path, words, files):
    _refuse([os.fsdecode(word) for word in words])
    return _start(path, words, files)


multiprocessing.util.spawnv_passfds = _spawn
sys.addaudithook(_audit)
