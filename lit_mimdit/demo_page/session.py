"""Does what a pressed button asks for, without the library that draws the buttons.

Every visitor has a key. A new request of a visitor, or the cancel button, stops the one before.
"""

import html
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from lit_mimdit.demo_page.compare import SCORES, Compared, Systems
from lit_mimdit.demo_page.folder import Folder, restore_folder
from lit_mimdit.demo_page.microscope import microscope
from lit_mimdit.demo_page.watched import Cancelled, Report
from lit_mimdit.demo_page.workbench import Result, Settings, Workbench, plain_error
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.slider import slider

FILE = "/gradio_api/file="  # where the page serves files of allowed folders
MOST = 16  # photographs of one request


class Refused(Exception):
    """A request that ends in one line."""


class Session:
    """Requests of visitors to one workbench.

    Args:
        bench: restores.
        systems: for the tab that compares.
    """

    def __init__(self, bench: Workbench, systems: Systems) -> None:
        self.bench, self.systems = bench, systems
        self._stops: dict[str, threading.Event] = {}
        self._one_at_a_time = threading.Lock()

    def cancel(self, visitor: str) -> bool:
        """Stop what a visitor's last request computes; False if it computes nothing."""
        stop = self._stops.get(visitor)
        if stop is None:
            return False
        stop.set()
        return True

    @contextmanager
    def _computing(self, visitor: str, paths: list[Path]) -> Iterator[threading.Event]:
        """One computation at a time, and a visitor's last alone; errors of users become
        `Refused`.
        """
        self.cancel(visitor)
        stop = threading.Event()
        self._stops[visitor] = stop
        try:
            with self._one_at_a_time:
                yield stop
        except Cancelled as error:
            raise Refused("cancelled: the computation was stopped") from error
        except (ValueError, OSError) as error:
            raise Refused(plain_error(error, paths)) from error
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            raise Refused("not enough memory; choose a smaller tile or photograph") from error
        finally:
            if self._stops.get(visitor) is stop:
                del self._stops[visitor]

    def restore(
        self, visitor: str, paths: list[Path], settings: Settings, report: Report
    ) -> tuple[list[Result], list[str]]:
        """Returns the restored photographs, and a line for each that could not be restored.

        Raises:
            Refused: nothing could be restored, or somebody cancelled.
        """
        if not paths:
            raise Refused("no photograph is chosen: drop one, or click an example")
        if len(paths) > MOST:
            raise Refused(f"{len(paths)} photographs are more than {MOST}: use the folder tab")
        results, failed = [], []
        with self._computing(visitor, paths) as stop:
            for number, path in enumerate(paths):

                def part(share: float, said: str, n: int = number, name: str = path.name) -> None:
                    report((n + share) / len(paths), f"{name}: {said}")

                try:
                    results.append(self.bench.restore(path, settings, part, stop))
                except ValueError as error:
                    failed.append(plain_error(error, paths))
        if not results:
            raise Refused(failed[0])
        return results, failed

    def what_if(
        self, visitor: str, path: Path, settings: Settings, report: Report
    ) -> tuple[Result, Result]:
        """Returns a photograph as the routers decide, and as `settings` overrules them."""
        if not settings.inter and not settings.intra:
            raise Refused("nothing is overruled: choose a group or a sub-expert first")
        with self._computing(visitor, [path]) as stop:
            both = []
            for number, own in enumerate((replace(settings, inter=None, intra=None), settings)):

                def half(share: float, said: str, number: int = number) -> None:
                    report((number + share) / 2, ("what if: " if number else "routers: ") + said)

                both.append(self.bench.restore(path, own, half, stop))
        return both[0], both[1]

    def compare(
        self,
        visitor: str,
        path: Path,
        reference: Path | None,
        names: list[str],
        seed: int,
        report: Report,
    ) -> list[Compared]:
        """Returns a photograph as several systems restore it: see Systems.compare."""
        paths = [path, reference] if reference is not None else [path]
        with self._computing(visitor, paths) as stop:
            return self.systems.compare(path, reference, names, seed, report, stop)

    def folder(self, visitor: str, paths: list[Path], settings: Settings, report: Report) -> Folder:
        """Returns a restored folder as a ZIP file with its table: see restore_folder."""
        with self._computing(visitor, paths) as stop:
            return restore_folder(self.bench, paths, settings, report, stop)

    # -- what is shown

    def shown(self, result: Result) -> str:
        """Returns the slider of a result as HTML."""
        return pair_slider(result.before, result.after, result, ("degraded", "restored"))

    def shown_what_if(self, own: Result, other: Result) -> str:
        """Returns the slider between the routers' own restoration and the other one."""
        return pair_slider(own.after, other.after, own, ("as the routers decide", "what if"))

    def shown_routing(self, result: Result) -> str:
        """Returns the microscope of a result as HTML; a sentence without routers."""
        if result.inter is None or result.chosen is None:
            return "<p>This system has no routers.</p>"
        parts = result.inter, result.chosen, self.bench.groups, self.bench.looks
        return microscope(*parts, result.boxes, result.size)

    def shown_comparison(self, rows: list[Compared]) -> str:
        """Returns the table of scores, and a slider for each system."""
        parts = []
        if rows[0].scores:
            head = "".join(f"<th>{METRICS[k].label} {METRICS[k].arrow}</th>" for k in SCORES)
            body = "".join(map(_row, rows))
            parts.append(f'<table class="scores"><tr><th>system</th>{head}</tr>{body}</table>')
        for row in rows[1:]:
            parts.append(f"<h4>{html.escape(row.system)}</h4>{self.shown(row.result)}")
        return "".join(parts)


def pair_slider(before: Path, after: Path, of: Result, names: tuple[str, str]) -> str:
    """Returns a slider between two files that the page serves."""
    addresses = (FILE + quote(str(path)) for path in (before, after))
    return slider(*addresses, of.size[1], names, of.name)


def _row(compared: Compared) -> str:
    """A row of the table of scores."""
    cells = [compared.system, *(compared.scores[key] for key in SCORES)]
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
