"""A folder of photographs: all restored, scored without references, and packed."""

import csv
import io
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from lit_mimdit.data.image_io import read_photo
from lit_mimdit.demo_page.watched import Cancelled, Report, Watched
from lit_mimdit.demo_page.workbench import Settings, Workbench, plain_error
from lit_mimdit.escaping import csv_cell
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.files import write_bytes
from lit_mimdit.inference.plan import plan
from lit_mimdit.inference.restore_files import restore_all
from lit_mimdit.inference.run_record import NAME, describe_run

SCORES = ("niqe", "musiq")  # those whose weights are here are computed
TABLE = "scores.csv"
SUFFIXES = (" before", " after")


@dataclass
class Folder:
    """A restored folder.

    Args:
        zip: restored photographs, scores.csv, and restoration.json about how they were made.
        head, rows: the table of scores.
        notes: a line for each photograph that is missing, and for each metric that is.
    """

    zip: Path
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def restore_folder(
    bench: Workbench, paths: list[Path], settings: Settings, report: Report, stop: threading.Event
) -> Folder:
    """Restore photographs into a ZIP file.

    A broken photograph does not cost the others. ValueError if none can be restored, `Cancelled`.
    """
    allowed, notes = [], []
    for path in paths:
        try:
            bench.require_allowed(path)
            allowed.append(path)
        except ValueError as error:
            notes.append(plain_error(error, paths))
    if not allowed:
        raise ValueError(notes[0] if notes else "no photograph is given: choose a folder")
    place = bench.new_folder()
    made = plan(allowed, place / "restored")
    done = 0

    def part(share: float, said: str) -> None:
        nonlocal done
        report((done + share) / len(allowed), f"photograph {done + 1} of {len(allowed)}, {said}")
        if share >= 1:
            done += 1

    watched = Watched(bench.restorer_for(settings), part, stop)
    run = describe_run(watched, bench.checkpoint, settings.seed)
    failed = restore_all(watched, made, run, False, False)
    notes += [plain_error(ValueError(line), paths) for line in failed]
    pairs = [(source, target) for source, target in made.jobs if target.is_file()]
    if not pairs:
        raise ValueError(notes[0])
    head, rows, missing = score(pairs, stop)
    table = made.output / TABLE
    text = io.StringIO(newline="")
    csv.writer(text).writerows([[csv_cell(cell) for cell in row] for row in [head, *rows]])
    write_bytes(table, text.getvalue().encode())
    target = place / "restored.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in [*(pair[1] for pair in pairs), table, made.output / NAME]:
            archive.write(path, path.relative_to(made.output))
    return Folder(target, head, rows, notes + missing)


def score(
    pairs: list[tuple[Path, Path]], stop: threading.Event
) -> tuple[list[str], list[list[str]], list[str]]:
    """Returns head and rows of a table of (photograph, restored photograph), and what is not in it.

    A row has each score before and after restoring; "" where there is none.
    """
    scorer = Scorer(SCORES, references=False)
    keys = [metric.key for metric in scorer.ready]
    notes = [f"{METRICS[key].label}: {reason}" for key, reason in scorer.missing.items()]
    titles = [f"{METRICS[key].label} {METRICS[key].arrow}" for key in keys]
    head = ["photograph", *(title + suffix for title in titles for suffix in SUFFIXES)]
    rows = []
    for pair in pairs:
        if stop.is_set():
            raise Cancelled("cancelled")
        both = [scorer.score(read_photo(path).rgb[None], None)[0].scores for path in pair]
        row = [pair[1].name]
        for key in keys:
            row += [_text(key, scores) for scores in both]
        rows.append(row)
    return head, rows, notes


def _text(key: str, scores: dict[str, float]) -> str:
    """A score as the table shows it; "" where there is none."""
    return f"{scores[key]:.{METRICS[key].decimals}f}" if key in scores else ""
