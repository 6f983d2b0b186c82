"""A summary as Markdown and LaTeX tables, and the scores of every image as CSV."""

import csv
import io
from itertools import chain
from typing import Any

from lit_mimdit import escaping
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.record import ImageScores
from lit_mimdit.evaluation.summary import ALL

Cell = str
NONE = "-"


def number(key: str, value: dict[str, Any] | None, interval: bool = True) -> str:
    """24.51 [24.10, 24.93]; "-" where there is no number."""
    if not value or value["mean"] is None:
        return NONE
    digits = METRICS[key].decimals
    text = f"{value['mean']:.{digits}f}"
    if interval and value["low"] is not None:
        text += f" [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
    return text


def rows_of(summary: dict[str, Any], version: str) -> tuple[list[Cell], list[list[Cell]]]:
    """Returns head and rows of the table of one version.

    A row is a degradation, a column N or a metric. Metrics that were not computed say so.
    """
    keys = list(summary["metrics"])
    several = len({group["dataset"] for group in summary["groups"]}) > 1
    head = _head(several, keys)
    body = []
    for group in summary["groups"]:
        values = group["versions"].get(version, {})
        cells = _group_cells(several, group)
        for key in keys:
            status = summary["metrics"][key]["status"]
            if status != "computed":
                cells.append(status.split(" (")[0])
                continue
            value = values.get(key)
            partial = value is not None and value["n"] != group["n"]
            cells.append(number(key, value) + (f" (N={value['n']})" if partial else ""))
        body.append(cells)
    return head, body


def _head(several: bool, keys: list[str]) -> list[Cell]:
    """The head of a table; `several` data sets have a column that tells them apart."""
    first = ["data set", "degradation", "N"] if several else ["degradation", "N"]
    return first + [f"{METRICS[key].label} {METRICS[key].arrow}" for key in keys]


def _group_cells(several: bool, group: dict[str, Any]) -> list[Cell]:
    """The first cells of a group's row, below those of `_head`."""
    cells = [group["degradation"], str(group["n"])]
    return [group["dataset"], *cells] if several else cells


def gain_rows(summary: dict[str, Any]) -> tuple[list[Cell], list[list[Cell]]] | None:
    """Returns head and rows of restored - degraded, with images better / worse / tied; None without
    both versions.
    """
    groups = [group for group in summary["groups"] if group["gain"]]
    if not groups:
        return None
    keys = list(groups[0]["gain"])
    several = len({group["dataset"] for group in summary["groups"]}) > 1
    head = _head(several, keys)
    body = []
    for group in groups:
        cells = _group_cells(several, group)
        for key in keys:
            gain = group["gain"][key]
            cells.append(
                f"{number(key, gain)}; {gain['better']} / {gain['worse']} / {gain['tied']}"
                if gain["n"]
                else NONE
            )
        body.append(cells)
    return head, body


def markdown(head: list[Cell], body: list[list[Cell]], escaped: bool = False) -> str:
    """Returns a Markdown table; pooled rows stand out; `escaped` cells are Markdown already."""
    convert = (lambda cell: cell) if escaped else escaping.markdown
    lines = ["| " + " | ".join(map(convert, head)) + " |", "|" + "---|" * len(head)]
    for cells in body:
        shown = [f"**{cell}**" if cell == ALL else convert(cell) for cell in cells]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def latex(head: list[Cell], body: list[list[Cell]], caption: str, escaped: bool = False) -> str:
    """Returns a LaTeX table (booktabs); `escaped` cells are LaTeX already."""
    convert = (lambda cell: cell) if escaped else escaping.tex
    first = sum(cell in ("data set", "degradation", "method") for cell in head)
    columns = "l" * first + "r" * (len(head) - first)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaping.tex(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
    ]
    lines += [" & ".join(map(convert, head)) + r" \\", r"\midrule"]
    for cells in body:
        if ALL in cells and len(body) > 1:
            lines.append(r"\midrule")
        lines.append(" & ".join(map(convert, cells)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def footnotes(summary: dict[str, Any]) -> list[str]:
    """Returns what a reader of the tables must know, a line each."""
    drawn = summary["bootstrap"]
    notes = [
        (
            f"Means over images; brackets: {drawn['level']:.0%} bootstrap intervals"
            f" ({drawn['resamples']} resamples, seed {drawn['seed']})."
            f" Images: {summary['image_rule']}."
        )
    ]
    for about in summary["metrics"].values():
        if about["status"] != "computed":
            notes.append(f"{about['label']}: {about['status']}.")
        elif not about["published_weights"]:
            notes.append(
                f"{about['label']}: its weights are not the published files (hashes in"
                " summary.json)."
            )
    for key, count in summary["tiled_images"].items():
        cap = summary["metrics"][key]["cap_pixels"]
        notes.append(
            f"{METRICS[key].label}: {count} image(s) above {cap:,} pixels scored as the mean of"
            " tiles within that cap."
        )
    if any(
        METRICS[key].needs == "set" and about["status"] == "computed"
        for key, about in summary["metrics"].items()
    ):
        notes.append(
            "FID: a row's images as one set (all: pooled); compare at equal N; no interval; one"
            " image has none."
        )
    if summary["failed"]:
        notes.append(
            f"{len(summary['failed'])} score(s) failed and are in no mean; they are listed below"
            " and in summary.json."
        )
    if summary.get("problems"):
        notes.append(
            f"Intersection: {len(summary['problems'])} image(s) could not be paired and are left"
            " out (summary.json)."
        )
    return notes


def scores_csv(rows: list[ImageScores], files: dict[tuple[str, str], str] | None = None) -> str:
    """Returns scores as CSV, a line an image.

    A line has the image's scores in every version, the paths in `files` by (id, version), and
    what failed. Text that a spreadsheet would compute has an apostrophe before it
    (escaping.csv_cell).
    """
    images: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row.dataset, row.degradation, row.id, row.version)):
        about = {
            "dataset": row.dataset,
            "id": row.id,
            "degradation": row.degradation,
            "height": row.height,
            "width": row.width,
        }
        line = images.setdefault((row.dataset, row.id), about | {"failed": ""})
        line |= {f"{row.version}_{key}": repr(value) for key, value in row.scores.items()}
        errors = [f"{row.version} {key}: {reason}" for key, reason in row.errors.items()]
        line["failed"] = "; ".join(filter(None, [line["failed"], *errors]))
    by_id = {id: line for (_, id), line in images.items()}
    for (id, version), path in (files or {}).items():
        if id in by_id:
            by_id[id][f"{version}_file"] = path
    known = ["dataset", "id", "degradation", "height", "width"]
    every = set(chain.from_iterable(images.values()))
    extra = sorted(every - {*known, "failed"}, key=_column)
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, fieldnames=[*known, *extra, "failed"], lineterminator="\n", restval=""
    )
    writer.writeheader()
    for line in images.values():
        writer.writerow(
            {k: escaping.csv_cell(v) if isinstance(v, str) else v for k, v in line.items()}
        )
    return buffer.getvalue()


def _column(name: str) -> tuple[int, int, str]:
    """Sorting key of a CSV column.

    Scores come first, of degraded, restored and others, each in the table's order; files follow.
    """
    version = next((i for i, v in enumerate(("degraded_", "restored_")) if name.startswith(v)), 2)
    key = next((i for i, k in enumerate(METRICS) if name.endswith(f"_{k}")), 99)
    return (2 if key == 99 else 0, version, f"{key:02}{name}")
