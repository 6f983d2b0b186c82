"""The paper's tables 1 and 2 as a table of one's own: each method a row, in the paper's order.

A run is recognised by the system that restored its images, or by the name its user gave it. A row
with an asterisk is the authors' own weights, as in the paper. It is what a file of `import-weights`
has restored, or a run that is named so, such as PromptIR*.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any, Literal

from lit_mimdit import escaping
from lit_mimdit.evaluation.published import (
    BENCHMARKS,
    FOUNDIR,
    PAPER,
    Entry,
    Mark,
    marked,
    marks,
    own_entry,
    published_column,
    read_published,
)
from lit_mimdit.evaluation.tables import NONE, markdown

NOT_RUN, NOT_COMPUTED = "not run", "not computed"
OWN = "MiM-DiT"  # the row of this project's system
# name of the system's class -> the paper's row
METHODS = {
    "MiMDiT": OWN,
    "AirNet": "AirNet",
    "DGUNet": "DGUNet",
    "TransWeather": "TransWeather",
    "PromptIR": "PromptIR",
    "DiffIR": "DiffIR",
    "DiffUIR": "DiffUIR",
    "DACLIP": "DA-CLIP",
    "AutoDIR": "AutoDIR*",  # has no training here: always the authors' weights
    "FoundIR": "FoundIR",
    "DiT4SR": "DiT4SR",
}
Cell = tuple[str, Mark]  # text, and how it is marked


@dataclass(frozen=True)
class League:
    """One degradation or data set: the paper's numbers and one's own, a row a method.

    Args:
        title: what it is of.
        head: of the columns.
        body: rows; each cell with its mark.
    """

    title: str
    head: list[str]
    body: list[list[Cell]]


def rows_of(table: Literal[1, 2]) -> list[str]:
    """Returns the methods of a table in the paper's order, this project's last."""
    entries = chain.from_iterable(read_published(table).values())
    methods = dict.fromkeys(entry.method for entry in entries)
    return [OWN if method == PAPER else method for method in methods]


def all_rows() -> list[str]:
    """Returns the methods of both tables.

    The order is table 1's. What only table 2 has, such as PromptIR*, follows what stands before it
    there.
    """
    rows = rows_of(1)
    second = rows_of(2)
    for before, method in zip([None, *second], second):
        if method not in rows:
            rows.insert(0 if before is None else rows.index(before) + 1, method)
    return rows


def label_of(summary: dict[str, Any]) -> str:
    """Returns the row of a run: its user's name for it, or else the method of its system.

    The method has an asterisk if its weights were imported from the authors' files.
    Images of several systems, of none that is recorded, or of one outside the paper's tables keep
    the run's name.
    """
    name = summary["name"]
    if name in all_rows():
        return name
    made = summary.get("restoration") or {}
    system = (made.get("system") or {}).get("class_path", "")
    method = METHODS.get(system.rpartition(".")[2])
    official = (made.get("checkpoint") or {}).get("official")
    if official and method is not None and not method.endswith("*"):
        method += "*"
    given = name != "restored"
    return name if given or method is None else method


def leagues(own: dict[str, dict[str, Any]]) -> list[League]:
    """Returns a table for each degradation of table 1 and data set of table 2 that a run has.

    Args:
        own: summaries of the runs by their row, as `evaluate` writes them.

    Returns:
        tables with two columns a metric, the paper's value and one's own. Best and second best are
        marked within each column. Own values are ranked if all of them have as many images. Behind
        them stand their 95% intervals for other images, which FID does not have.
    """
    tables = []
    for table, groups in ((1, list(FOUNDIR)), (2, list(BENCHMARKS))):
        for group in groups:
            columns = list(dict.fromkeys(column for _, column in read_published(table)))
            values = {
                (label, column): own_entry(own[label], table, group, column, label)
                for label, column in product(own, columns)
            }
            counts = {value[1] for value in values.values() if value}
            if counts:
                tables.append(_league(table, group, columns, own, values, counts))
    return tables


Values = dict[tuple[str, str], tuple[Entry, int] | None]


def _league(
    table: Literal[1, 2],
    group: str,
    columns: list[str],
    own: dict[str, Any],
    values: Values,
    counts: set[int],
) -> League:
    rows = _with(all_rows(), own)
    body: list[list[Cell]] = [[(row, "")] for row in rows]
    head = ["method"]
    cells = read_published(table)
    for column in columns:
        metric = published_column(column)
        paper = [
            Entry(OWN if one.method == PAPER else one.method, one.value)
            for one in cells[group, column]
        ]
        here = [value[0] for row in own if (value := values[row, column])]
        head += [f"{column} {metric.arrow} paper", f"{column} {metric.arrow} here"]
        paper_marks = marks(paper, metric.higher)
        counted = [replace(entry, ranked=True) for entry in here]  # against each other
        here_marks = marks(counted, metric.higher) if len(counts) == 1 and len(here) > 1 else {}
        shown = {entry.method: f"{entry.value:.4f}" for entry in paper}
        ours = {entry.method: entry.text for entry in here}
        for row, line in zip(rows, body):
            absent = NOT_COMPUTED if _was_run(row, values) else NOT_RUN
            if any(other.startswith(f"{row} (") for other in own):
                absent = NONE  # its runs stand below it
            line.append((shown.get(row, NONE), paper_marks.get(row, "")))
            line.append((ours.get(row, absent), here_marks.get(row, "")))
    numbers = ", ".join(map(str, sorted(counts)))
    unranked = "" if len(counts) == 1 else "; of different numbers, so not ranked"
    title = f"Table {table}, {group}: the paper and here (here N = {numbers}{unranked})"
    return League(title, head, body)


def _with(rows: list[str], labels: Iterable[str]) -> list[str]:
    """The paper's rows and all labels: AirNet* and AirNet (seed 1) behind AirNet, others at the
    end.
    """
    rows = list(rows)
    for label in [label for label in labels if label not in rows]:
        named = label.partition(" (")[0]
        method = named if named in rows else named.removesuffix("*")
        place = rows.index(method) + 1 if method in rows else len(rows)
        while place < len(rows) and rows[place].startswith((f"{named} (", f"{method} (")):
            place += 1
        rows.insert(place, label)
    return rows


def _was_run(row: str, values: Values) -> bool:
    """Returns whether a row has a number of its own in any column."""
    return any(value is not None for (label, _), value in values.items() if label == row)


def markdown_of(league: League) -> str:
    """Returns the table as Markdown; best in bold, second best underlined."""
    escape = escaping.markdown
    body = [[marked(escape(text), mark, "markdown") for text, mark in row] for row in league.body]
    return markdown([escape(cell) for cell in league.head], body, escaped=True)
