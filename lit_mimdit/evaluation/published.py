"""The numbers of the MiM-DiT paper (arXiv 2603.02710): tables 1 and 2 with one's own beside them,
best and second best marked; 3 to 5.

Own results are ranked only where they come from as many images as the published set has; else they
are shown unranked, as "other images".
"""

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from lit_mimdit import escaping
from lit_mimdit.evaluation.metrics import METRICS, Metric
from lit_mimdit.evaluation.summary import ALL
from lit_mimdit.evaluation.tables import NONE, latex, markdown

PAPER = "MiM-DiT (paper)"
OURS = "Ours"  # as the CSV calls the paper's own method
# degradation of table 1 -> folder of FoundIR's test set and its number of images; the isolated
# types (the paper does not say which)
FOUNDIR = {
    "Blur": ("01Blur", 150),
    "Noise": ("05Noise", 100),
    "Haze": ("08Haze", 200),
    "Rain": ("10Rain", 100),
    "Low-light": ("14Lowlight", 50),
}
# data set of table 2 -> number of test images; None where the published list is not known
BENCHMARKS: dict[str, int | None] = {
    "4KRD": None,
    "RealRain-1K": 448,
    "HazeRD": None,
    "UHD-LL": 150,
}
Mark = Literal["best", "second", ""]
# ablation table -> its file, and the row of the full model
ABLATIONS = {
    3: ("table3_intra_moe.csv", "w/ Intra-MoE"),
    4: ("table4_inter_moe_heterogeneity.csv", "(e) Heterogeneity"),
    5: ("table5_router_design.csv", "Dense Inter + Sparse Intra"),
}


@dataclass(frozen=True)
class Entry:
    """A method's score in one group. ranked: whether it takes part in the marking.

    low, high: ends of its interval for other images, where there is one.
    """

    method: str
    value: float
    ranked: bool = True
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """The value, with its interval if it has one: 0.3456 [0.3300, 0.3612]."""
        if self.low is None or self.high is None:
            return f"{self.value:.4f}"
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def published_column(metric: str) -> Metric:
    """Returns the metric whose key stands for a column of the paper's tables."""
    return next(m for m in METRICS.values() if m.published == metric)


def read_published(table: Literal[1, 2]) -> dict[tuple[str, str], list[Entry]]:
    """(degradation or data set, column) -> entries in the paper's order; lower or higher is better
    as the metric's direction says.
    """
    name = {1: "table1_foundir.csv", 2: "table2_benchmarks.csv"}[table]
    text = (files("lit_mimdit.evaluation") / "paper" / name).read_text(encoding="utf-8")
    entries: dict[tuple[str, str], list[Entry]] = {}
    for line in csv.DictReader(text.splitlines()):
        group = line.get("degradation") or line["dataset"]
        method = PAPER if line["method"] == OURS else line["method"]
        entries.setdefault((group, line["metric"]), []).append(Entry(method, float(line["value"])))
    return entries


def read_ablation(table: int) -> dict[str, dict[str, float]]:
    """Returns rows of the paper's table 3, 4 or 5: variant -> column (LPIPS, FID, ...) -> value."""
    text = (files("lit_mimdit.evaluation") / "paper" / ABLATIONS[table][0]).read_text(
        encoding="utf-8"
    )
    rows: dict[str, dict[str, float]] = {}
    for line in csv.DictReader(text.splitlines()):
        variant = line.pop("variant")
        rows[variant] = {column: float(value) for column, value in line.items()}
    return rows


def marks(entries: list[Entry], higher: bool, decimals: int = 4) -> dict[str, Mark]:
    """Returns the best and second best by printed value; equal values share their mark."""
    printed = {entry.method: round(entry.value, decimals) for entry in entries if entry.ranked}
    places = sorted(set(printed.values()), reverse=higher)[:2]
    ranks: tuple[Mark, Mark] = ("best", "second")
    return {
        method: ranks[places.index(value)] if value in places else ""
        for method, value in printed.items()
    }


def own_entry(
    summary: dict[str, Any], table: Literal[1, 2], group: str, column: str, name: str
) -> tuple[Entry, int] | None:
    """One's own result for a cell of the paper, with its N, or None."""
    dataset, degradation, expected = (
        ("FoundIR", *FOUNDIR[group]) if table == 1 else (group, ALL, BENCHMARKS[group])
    )
    key = published_column(column).key
    for entry in summary["groups"]:
        value = entry["versions"].get("restored", {}).get(key)
        if (
            (entry["dataset"], entry["degradation"]) == (dataset, degradation)
            and value
            and value["mean"] is not None
        ):
            ends = value.get("low"), value.get("high")
            return Entry(name, value["mean"], value["n"] == expected, *ends), value["n"]
    return None


def comparison(summary: dict[str, Any], name: str, style: Literal["markdown", "latex"]) -> str:
    """Returns tables 1 and 2 with one's own row in each group that was evaluated; empty if none
    was.
    """
    parts = []
    for table, groups in ((1, list(FOUNDIR)), (2, list(BENCHMARKS))):
        cells = read_published(table)
        columns = list(dict.fromkeys(column for _, column in cells))
        for group in groups:
            own = {column: own_entry(summary, table, group, column, name) for column in columns}
            known = [entry_and_count for entry_and_count in own.values() if entry_and_count]
            counts = {count for _, count in known}
            if not counts:
                continue
            unranked = any(not entry.ranked for entry, _ in known)
            title = f"Table {table}, {group}: published values and {name}"
            note = f" ({name}: N = {', '.join(map(str, sorted(counts)))}"
            note += (
                "; other images than the published ones or their list unknown: not ranked)"
                if unranked
                else ")"
            )
            parts.append(
                _one(cells, columns, group, own, _reasons(summary, columns), title + note, style)
            )
    return "\n\n".join(parts)


def _reasons(summary: dict[str, Any], columns: list[str]) -> dict[str, str]:
    """Returns why one's own row has no number in a column."""
    about = {column: summary["metrics"].get(published_column(column).key) for column in columns}
    return {
        column: NONE if entry is None or entry["status"] == "computed" else "not computed"
        for column, entry in about.items()
    }


def _one(
    cells: dict[tuple[str, str], list[Entry]],
    columns: list[str],
    group: str,
    own: dict[str, tuple[Entry, int] | None],
    reasons: dict[str, str],
    title: str,
    style: Literal["markdown", "latex"],
) -> str:
    entries = {
        column: cells[group, column] + ([own[column][0]] if own[column] else [])
        for column in columns
    }
    methods = list(dict.fromkeys(entry.method for column in columns for entry in entries[column]))
    own_names = {entry.method for entry, _ in filter(None, own.values())}
    escape = escaping.tex if style == "latex" else escaping.markdown
    head = ["method"] + [f"{column} {published_column(column).arrow}" for column in columns]
    body = []
    for method in methods:
        row = [method]
        for column in columns:
            metric = published_column(column)
            value = next((entry.value for entry in entries[column] if entry.method == method), None)
            mark = marks(entries[column], metric.higher).get(method, "")
            absent = reasons[column] if method in own_names else NONE
            row.append(absent if value is None else marked(f"{value:.4f}", mark, style))
        shown = f"{method} (this run)" if method in own_names else method
        row[0] = escape(shown)
        body.append(row)
    head = [escape(cell) for cell in head]
    if style == "latex":
        return latex(head, body, title, escaped=True)
    said = f"{escape(title)}; best in bold, second best underlined"
    return f"{said}\n\n{markdown(head, body, escaped=True)}"


def marked(text: str, mark: Mark, style: Literal["markdown", "latex"]) -> str:
    forms = {
        "markdown": {"best": "**{}**", "second": "<u>{}</u>"},
        "latex": {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"},
    }
    return forms[style][mark].format(text) if mark else text
