"""Files of a finished evaluation: summary.json, scores.csv, tables.md, tables.tex, routing.json."""

import json
from pathlib import Path
from typing import Any

from lit_mimdit import escaping
from lit_mimdit.evaluation.published import comparison
from lit_mimdit.evaluation.record import ImageScores
from lit_mimdit.evaluation.tables import footnotes, gain_rows, latex, markdown, rows_of, scores_csv
from lit_mimdit.files import write_bytes

SUMMARY = "summary.json"
SCORES = "scores.csv"
MARKDOWN = "tables.md"
LATEX = "tables.tex"
ROUTING = "routing.json"


def titled_tables(summary: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, head, body) of every table of a summary: its versions, and restored - degraded."""
    titles = {"restored": summary["name"]}
    lines = [
        (titles.get(version, version.replace("_", " ")), *rows_of(summary, version))
        for version in summary["versions"]
    ]
    gain = gain_rows(summary)
    if gain is not None:
        lines.append((f"{summary['name']} - degraded; images better / worse / tied", *gain))
    return lines


def as_markdown(summary: dict[str, Any]) -> str:
    """Returns all tables, notes, failures, and the published numbers beside one's own."""
    parts = [
        f"## {escaping.markdown(title)}\n\n{markdown(head, body)}"
        for title, head, body in titled_tables(summary)
    ]
    parts.append("\n".join(f"- {escaping.markdown(note)}" for note in footnotes(summary)))
    if summary["failed"]:
        lines = [
            escaping.markdown(f"{f['id']}, {f['version']}, {f['metric']}: {f['reason']}")
            for f in summary["failed"]
        ]
        parts.append("## Failed\n\n" + "\n".join(f"- {line}" for line in lines))
    beside = comparison(summary, summary["name"], "markdown")
    if beside:
        parts.append(f"## Beside the published numbers\n\n{beside}")
    return "\n\n".join(parts) + "\n"


def as_latex(summary: dict[str, Any]) -> str:
    """Returns the same tables for a paper (needs booktabs)."""
    parts = [
        latex(head, body, f"{title}. {footnotes(summary)[0]}")
        for title, head, body in titled_tables(summary)
    ]
    return "\n\n".join(filter(None, [*parts, comparison(summary, summary["name"], "latex")])) + "\n"


def write_scores(
    folder: Path,
    summary: dict[str, Any],
    rows: list[ImageScores],
    files: dict[tuple[str, str], str] | None = None,
    routing: dict[str, list[list[float]]] | None = None,
    prefix: str = "",
) -> None:
    """Write every file of a finished evaluation; `prefix` goes before their names."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        SUMMARY: json.dumps(summary, indent=1, allow_nan=False) + "\n",
        SCORES: scores_csv(
            [row for row in rows if row.version != "reference" or row.errors], files
        ),
        MARKDOWN: as_markdown(summary),
        LATEX: as_latex(summary),
    }
    if routing:
        texts[ROUTING] = json.dumps(routing) + "\n"
    for name, text in texts.items():
        # a file name that is no UTF-8 shows its bytes
        write_bytes(folder / f"{prefix}{name}", text.encode("utf-8", "backslashreplace"))


def print_tables(summary: dict[str, Any], width: int = 140) -> None:
    """The tables on the terminal, in parts of a few metrics each."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=width, soft_wrap=False, markup=False, emoji=False)
    for title, head, body in titled_tables(summary):
        fixed = next(i for i, cell in enumerate(head) if cell == "N") + 1
        per_part = 3
        for first in range(fixed, len(head), per_part):
            columns = [*range(fixed), *range(first, min(first + per_part, len(head)))]
            shown = Table(title=title)
            for i in columns:
                shown.add_column(head[i], justify="left" if i < fixed - 1 else "right")
            for cells in body:
                shown.add_row(*(cells[i] for i in columns), end_section=False)
            console.print(shown)
