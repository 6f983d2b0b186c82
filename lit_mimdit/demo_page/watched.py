"""A restorer that reports how far it is and can be stopped between two evaluations."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lit_mimdit.models.decisions import Decisions

Report = Callable[[float, str], object]  # share of the work from 0 to 1, and what is said of it


class Cancelled(Exception):
    """Somebody stopped the computation."""


class Watched:
    """Restores as `inner` does; everything else of `inner` is found here, too.

    Args:
        inner: see systems/base.py: ImageRestorer.
        report: called after each evaluation.
        stop: when set, the next evaluation raises `Cancelled`.
    """

    def __init__(self, inner: Any, report: Report, stop: threading.Event) -> None:
        self.inner = inner
        self.report = report
        self.stop = stop
        self.decisions: list[Decisions] = []  # of the last call

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(
        self,
        lq: Tensor,
        seeds: Tensor,
        progress: Callable[[int], object] | None = None,
        ids: Sequence[str] | None = None,
    ) -> tuple[Tensor, list[Decisions]]:
        """Restore images as `inner` does. Raises `Cancelled`."""
        total = self.inner.evaluations(*lq.shape[-2:]) * len(lq)
        begun, done = time.monotonic(), 0

        def watch(count: int) -> None:
            nonlocal done
            self._require_wanted()
            done += count
            if progress is not None:
                progress(count)
            self.report(done / total, time_left(time.monotonic() - begun, done, total))

        self._require_wanted()
        restored, self.decisions = self.inner(lq, seeds, watch, ids)
        self._require_wanted()
        return restored, self.decisions

    def _require_wanted(self) -> None:
        if self.stop.is_set():
            raise Cancelled("cancelled")


def time_left(elapsed: float, done: int, total: int) -> str:
    """Returns how long the rest takes if it takes as long as what is done, such as "1:05 left"."""
    left = round(elapsed / max(done, 1) * (total - done))
    return f"{left // 60}:{left % 60:02d} left" if left >= 60 else f"{left} s left"
