"""Tiers of tests: a pytest plugin that reads them off fixtures, and holds the first of them.

A test is in the tier of the fixtures that it requests, itself or through others. `processes` stands
for other processes, servers, browsers and clusters. `takes_minutes` stands for what is too slow for
every day. The fast tier does without `takes_seconds`, which whole models, data sets and runs need.
A test that has no use for what a fixture gives names it in `pytest.mark.usefixtures`.
"""

import multiprocessing.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).parents[1]
MARKS = {"processes": "process", "takes_minutes": "slow"}
# where fast tests lie; other places are not even read for `-m fast`, since reading takes longer
# than testing
FAST_PLACES = (
    "data",
    "models",
    "evaluation/test_intervals.py",
    "evaluation/test_league.py",
    "evaluation/test_pairing.py",
    "evaluation/test_published.py",
    "inference/test_colour.py",
    "inference/test_tiling.py",
    "routing/test_health.py",
    "routing/test_records.py",
    "routing/test_table6.py",
    "test_docs.py",
    "test_docstrings.py",
    "test_house.py",
    "test_install.py",
    "test_kit.py",
    "test_log.py",
    "test_troubleshooting.py",
)
_running: list[str] = []  # the test that may start no process


@pytest.fixture(scope="session")
def processes() -> ModuleType:
    """The module `subprocess`, for tests that start processes."""
    return subprocess


@pytest.fixture(scope="session")
def in_fresh_process(processes) -> Callable:
    """Calls a function in a new process; tells what it returns, or raises what it raises."""
    from kit import fresh

    return fresh.in_fresh_process


@pytest.fixture(scope="session")
def takes_minutes() -> None:
    """For what takes minutes rather than seconds on two CPU cores."""


@pytest.fixture(scope="session")
def takes_seconds() -> None:
    """For what is more than a function or a file."""


def place_of(path: Path) -> str:
    """A file or a folder below the folder of the tests; empty for that folder and elsewhere."""
    inside = path.is_relative_to(TESTS) and path != TESTS
    return path.relative_to(TESTS).as_posix() if inside else ""


def is_fast(place: str) -> bool:
    """Whether fast tests lie at a place or in it."""
    return any(
        f"{fast}/".startswith(f"{place}/") or place.startswith(f"{fast}/") for fast in FAST_PLACES
    )


def marks_of(fixtures: Collection[str], place: str) -> list[str]:
    """What a test that requests these fixtures is marked as; `place` is its file."""
    marks = [mark for name, mark in MARKS.items() if name in fixtures]
    return marks or ["fast"] * (is_fast(place) and "takes_seconds" not in fixtures)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave places without fast tests alone, if only those are wanted."""
    place = place_of(collection_path)
    return (config.option.markexpr == "fast" and place != "" and not is_fast(place)) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests.

    Files that take long come first, so that no process has a long one left when others are done.
    """
    for item in items:
        for mark in marks_of(getattr(item, "fixturenames", ()), place_of(item.path)):
            item.add_marker(mark)
    slow = Counter(item.path for item in items if item.get_closest_marker("fast") is None)
    items.sort(key=lambda item: (not place_of(item.path).startswith("cluster/"), -slow[item.path]))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Say what the choice of tests left out, and how to run it."""
    if config.option.markexpr == "not process and not slow":
        terminalreporter.write_line(
            'left out: tests that start processes, and slow ones: pytest -m "process or slow"'
        )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """From now on a Python process is an error, unless the test is of a tier that may start some.

    Forks of a loader's workers are none: they take milliseconds.
    """
    allowed = any(item.get_closest_marker(mark) for mark in MARKS.values())
    _running[:] = [] if allowed else [item.nodeid]


def _refuse(command: list[str]) -> None:
    if _running and "resource_tracker" not in " ".join(command):
        test = _running.pop()
        pytest.fail(
            f"{test} starts a process, {' '.join(command)[:90]}: let it request the fixture"
            " `processes`"
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
