"""The folder of a routing study holds CSV tables, table 6 as Markdown and LaTeX, and a page."""

import json
from pathlib import Path
from typing import Any

from lit_mimdit import csv_file
from lit_mimdit.csv_file import Row
from lit_mimdit.evaluation.tables import latex, markdown
from lit_mimdit.files import write_bytes
from lit_mimdit.routing import study
from lit_mimdit.routing.cells import Preferences, caption, preferences_of, table6_cells
from lit_mimdit.routing.page import write_page
from lit_mimdit.routing.study import RoutingStudy
from lit_mimdit.routing.table6 import agreement, published_for

FORMAT = "lit_mimdit.routing.1"
TABLES = ("table6", "degradations", "blocks", "sub_experts", "routers", "severity", "records")


def read_csv(path: Path) -> list[Row]:
    """Returns a table of a study's folder; numbers as numbers, NaN where there is none."""
    text = {
        "checkpoint",
        "id",
        "degradation",
        "severity",
        "group",
        "router",
        "severities",
        "against_equal_share",
        "against_own_mean",
    }

    def typed(key: str, value: str) -> str | float:
        return value if key in text else csv_file.number(value or "nan")

    return [{key: typed(key, cell) for key, cell in row.items()} for row in csv_file.read(path)]


def write_study(folder: Path, of: RoutingStudy, permutations: int, seed: int) -> dict[str, Any]:
    """Write every file of a study, and return its summary."""
    folder.mkdir(parents=True, exist_ok=True)
    six = preferences_of(of)
    every, _, _ = study.degradation_table(of, {name: name for name in of.degradations})
    tables = {
        "table6": [] if six is None else six.rows,
        "degradations": every,
        "blocks": study.block_table(of),
        "sub_experts": study.sub_expert_table(of),
        "routers": study.router_table(of, permutations, seed),
        "severity": study.severity_table(of, permutations, seed),
        "records": study.record_table(of),
    }
    _write_tables(folder, tables)
    if six is not None and six.rows:
        _write_table6(folder, six.rows, caption(of))
    summary = summary_of(of, six)
    write_bytes(folder / "routing.json", (json.dumps(summary, indent=1) + "\n").encode())
    files = [f"{name}.csv" for name in TABLES if tables[name]]
    write_page(folder, of, tables["severity"], summary, six, files)
    return summary


def _write_text(path: Path, text: str) -> None:
    """Write UTF-8; a file name that is none shows its bytes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def _write_tables(folder: Path, tables: dict[str, list[Row]]) -> None:
    """A CSV file a table; those of an earlier study that are empty now are removed."""
    for name in TABLES:
        path = folder / f"{name}.csv"
        if tables[name]:
            _write_text(path, csv_file.table(tables[name]))
        else:
            path.unlink(missing_ok=True)


def _write_table6(folder: Path, rows: list[Row], text: str) -> None:
    """Table 6 as Markdown and LaTeX."""
    head, body = table6_cells(rows)
    _write_text(folder / "table6.md", f"{text}.\n\n{markdown(head, body)}\n")
    _write_text(folder / "table6.tex", latex(head, body, text) + "\n")


def summary_of(of: RoutingStudy, six: Preferences | None) -> dict[str, Any]:
    """Returns what routing.json holds: the study, its health, and how it compares with the
    paper.
    """
    summary: dict[str, Any] = {
        "format": FORMAT,
        "checkpoints": of.checkpoints,
        "groups": of.groups,
        "top_k": of.top_k,
    } | of.about
    health = [h.sentences(of.groups) if h is not None else None for h in study.health(of)]
    summary["health"] = dict(zip(of.checkpoints, health, strict=True))
    if six is None or len(six.names) < 2:
        return summary
    published = published_for(list(six.names), of.groups)
    if published is not None:
        summary["agreement_with_table6"] = agreement(six.weights.mean, published)
        for kind in ("against_equal_share", "against_own_mean"):
            verdicts = [row[kind] for row in six.rows]
            summary[kind] = {
                word: verdicts.count(word) for word in ("appears", "opposite", "undecided")
            }
    return summary
