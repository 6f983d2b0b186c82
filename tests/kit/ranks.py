"""Runs of one rank or several, forked from one process that has imported everything.

Starting Python costs more than a tiny run.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KIT = Path(__file__).parent
TESTS = KIT.parent


class Starter:
    """Starts commands of the package in processes of their own, and waits for them."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def statuses(self, folder: Path, args: list[str], ranks: int = 1, **environment) -> list[int]:
        """Exit status of each rank, negative for a signal; what they say is in output.txt."""
        asked = {
            "folder": str(folder),
            "args": args,
            "ranks": ranks,
            "environment": {name: str(value) for name, value in environment.items()},
        }
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def run(self, folder: Path, args: list[str], ranks: int = 1, **environment) -> None:
        """The same, for a run that has to end well."""
        found = self.statuses(folder, args, ranks, **environment)
        assert found == [0] * ranks, (found, (folder / "output.txt").read_text()[-3000:])


@contextmanager
def starting() -> Iterator[Starter]:
    """A starter, and the end of all that it started."""
    places = [TESTS / "training", TESTS, TESTS.parent, os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, places)),
        "OMP_NUM_THREADS": "1",
    }
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "text": True,
    }
    command = [sys.executable, str(KIT / "forked_runs.py")]
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield Starter(process)
        process.kill()  # nothing of it runs any more
