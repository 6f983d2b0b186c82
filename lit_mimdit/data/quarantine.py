"""A CSV file lists what could not be read, each file once.

A run stops when there is too much of it.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lit_mimdit.data.faults import Fault
from lit_mimdit.escaping import csv_cell
from lit_mimdit.files import write_bytes

COLUMNS = ("id", "reason", "epoch", "step")


def write_quarantine(path: Path, rows: Iterable[tuple]) -> None:
    """Write (id, reason, ...) rows, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([csv_cell(str(cell)) for cell in row] for row in rows)
    write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))


class Quarantine:
    """Records the faults of a run in the order of meeting; equal on all ranks if they add the same.

    Args:
        samples: size of the training set.
        limit: share of its samples that may be broken.
    """

    def __init__(self, samples: int, limit: float) -> None:
        self.samples, self.limit = samples, limit
        self.rows: dict[str, tuple[Fault, int, int]] = {}

    @property
    def lost(self) -> int:
        """Samples that cannot be read."""
        return sum(fault.lost for fault, _, _ in self.rows.values())

    def add(self, faults: Iterable[Fault], epoch: int, step: int) -> list[Fault]:
        """Take note of faults; returns those that are new."""
        new = [fault for fault in faults if fault.id not in self.rows]
        new = list({fault.id: fault for fault in reversed(new)}.values())[
            ::-1
        ]  # of two of one id, the first
        self.rows |= {fault.id: (fault, epoch, step) for fault in new}
        return new

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_quarantine(
            path, ((*fault[:2], epoch, step) for fault, epoch, step in self.rows.values())
        )

    def require_few(self, where: str) -> None:
        """Raises ValueError if more than the limit is lost."""
        if self.lost > self.limit * self.samples:
            last = next(fault for fault, _, _ in reversed(self.rows.values()) if fault.lost)
            raise ValueError(
                f"{self.lost} of {self.samples} training samples cannot be read, more than"
                f" data.max_broken = {self.limit:g} allows (the last: {last.id}: {last.reason});"
                f" all are listed in {where}. Mend or remove them, or raise data.max_broken"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [(*fault, epoch, step) for fault, epoch, step in self.rows.values()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = {row[0]: (Fault(*row[:3]), *row[3:]) for row in state["rows"]}
