"""Runs in processes of their own, started from one that has imported everything (warm.py)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from kit.checkpoints import tensors
from watch import seen

HERE = Path(__file__).parent
CHECKPOINTS = Path("runs/quickstart/checkpoints")
SINGLE_HOST = [
    "--nproc-per-node",
    "2",
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "localhost:0",
    "--rdzv-id",
    "test",
]  # --standalone
PATIENCE = 900  # seconds; a machine that does other work needs some


def environment() -> dict[str, str]:
    """The test's, with the test's callbacks on Python's path."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


class Warm:
    """Starts runs and waits for them; see warm.py."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE / "warm.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def _ask(self, **request) -> int | None:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self, folder: Path, args: list[str], torchrun: list[str] | None = None, **more
    ) -> int:
        return self._ask(folder=str(folder), args=args, torchrun=torchrun, **more)

    def wait(self, pid: int, timeout: float = PATIENCE) -> int | None:
        return self._ask(wait=pid, timeout=timeout)

    def run(self, folder: Path, args: list[str], torchrun: list[str] | None = None, **more) -> None:
        """A run that must end well."""
        status = self.wait(self.start(folder, args, torchrun, **more))
        assert status == 0, f"status {status}: {said(folder)[-3000:]}"

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

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def said(folder: Path) -> str:
    """What the runs of a folder have written, by file."""
    return "".join(
        path.read_text(errors="replace")
        for path in sorted([*folder.glob("output.txt"), *folder.glob("host-*.txt")])
    )


def assert_same_run(folder: Path, expected: Path, atol: float = 2e-6) -> None:
    """The last checkpoints agree, bit by bit if the tolerance is 0.

    Every step had the same samples: none lost, none twice.
    """
    ours, theirs = (
        tensors(folder / CHECKPOINTS / "last.ckpt"),
        tensors(expected / CHECKPOINTS / "last.ckpt"),
    )
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(
            ours[name],
            tensor,
            rtol=0,
            atol=atol,
            msg=lambda text, n=name: f"{folder.name}: {n}: {text}",
        )
    ours, theirs = seen(folder), seen(expected)
    assert {step: sorted(samples) for step, samples in ours.items()} == {
        step: sorted(samples) for step, samples in theirs.items()
    }
