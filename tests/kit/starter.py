"""Runs of one process or several, forked from one that has imported everything.

Starting Python costs more than a tiny run.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

KIT = Path(__file__).parent
PATIENCE = 900  # seconds; a machine that does other work needs some


def environment() -> dict[str, str]:
    """The test's, with this kit on Python's path, for the callbacks of a run."""
    path = os.pathsep.join([*map(str, KIT.parents[:2]), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def said(folder: Path) -> str:
    """What the runs of a folder have written, by file."""
    return "".join(
        path.read_text(errors="replace")
        for path in sorted([*folder.glob("output.txt"), *folder.glob("host-*.txt")])
    )


class Starter:
    """Starts commands of the package in processes of their own, and waits for them; see warm.py."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def _ask(self, **request) -> int | None:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self, folder: Path, args: list[str], torchrun: list[str] | None = None, **more
    ) -> int:
        """Start one process, or those of torchrun; tell the id to wait for."""
        return self._ask(folder=str(folder), args=args, torchrun=torchrun, **more)

    def wait(self, pid: int, timeout: float = PATIENCE) -> int | None:
        """Exit status, negative for a signal; None after the timeout."""
        return self._ask(wait=pid, timeout=timeout)

    def run(self, folder: Path, args: list[str], torchrun: list[str] | None = None, **more) -> None:
        """A run that must end well."""
        status = self.wait(self.start(folder, args, torchrun, **more))
        assert status == 0, f"status {status}: {said(folder)[-3000:]}"

    def statuses(self, folder: Path, args: list[str], ranks: int = 1, **variables) -> list:
        """Exit status of each rank; they are one process group, as behind a launcher."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launched = {"NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        pids: list[int] = []
        for rank in range(ranks):
            own = launched | {"LOCAL_RANK": rank} if ranks > 1 else {}
            env = {name: str(value) for name, value in (variables | own).items()}
            pids.append(self.start(folder, args, env=env, group=pids[0] if pids else 0))
        return [self.wait(pid) for pid in pids]

    def run_ranks(self, folder: Path, args: list[str], ranks: int, **variables) -> None:
        """A run of so many ranks that must end well."""
        found = self.statuses(folder, args, ranks, **variables)
        assert found == [0] * ranks, f"statuses {found}: {said(folder)[-3000:]}"

    def until(self, pid: int, folder: Path, happened: Callable[[], bool]) -> None:
        """Waits for something that a run in progress does."""
        limit = time.monotonic() + PATIENCE
        while not happened():
            status = self.wait(pid, 0.05)
            assert status is None and time.monotonic() < limit, (
                f"status {status}: {said(folder)[-3000:]}"
            )

    def halted(self, pid: int, folder: Path) -> int:
        """Waits until a run has halted (watch.py), and says which process did."""
        self.until(pid, folder, (folder / "halted").exists)
        return int((folder / "halted").read_text())

    def hears(self, pid: int, folder: Path) -> None:
        """Waits until rank 0 has received a signal."""
        self.until(pid, folder, lambda: "Stopping after this step" in said(folder))


@contextmanager
def starting() -> Iterator[Starter]:
    """A starter, and the end of all that it started."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, str(KIT / "warm.py")]
    process = subprocess.Popen(command, env=environment(), **pipes)
    yield Starter(process)
    process.stdin.close()
    process.wait(timeout=60)
