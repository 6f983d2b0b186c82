"""The files of a study's results.

They are results.csv, results.md, results.tex, a plot, and how the runs learned.
"""

import math
from pathlib import Path
from typing import Any

from lit_mimdit import csv_file, escaping
from lit_mimdit.ablation.curves import curves, picture
from lit_mimdit.ablation.picture import forest, gains
from lit_mimdit.ablation.results import CROSSED, Tested, commits, named_lines, table
from lit_mimdit.ablation.study import Study
from lit_mimdit.csv_file import Row
from lit_mimdit.evaluation.figures import png, svg
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.summary import ALL
from lit_mimdit.evaluation.tables import NONE, latex, markdown
from lit_mimdit.files import write_bytes

CSV = "results.csv"
MARKDOWN = "results.md"
LATEX = "results.tex"
PLOT, CURVES = "results", "curves"  # with the endings of their files
GAINS = "gains"
METHOD = (
    "Brackets: 95% intervals of variant - full, paired by seed and image, for other trainings and"
    " other images (seeds and images crossed, both random: Dorfman, Berbaum, Metz 1992,"
    " Satterthwaite 1946); of FID a t interval over the seeds, images fixed. Not corrected for the"
    " number of comparisons."
)
VALUES = (
    "Brackets: 95% intervals of the mean itself, for other trainings and other images, as above; of"
    " FID over the seeds. They are wider than those of differences, which are paired."
)
Table = tuple[str, list[str], list[list[str]]]  # title, head, body


def signed(key: str, mean: float, low: float, high: float) -> str:
    """+0.0123 [+0.0010, +0.0236]; no brackets without an interval."""
    digits = METRICS[key].decimals
    ends = "" if math.isnan(low) else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return NONE if math.isnan(mean) else f"{mean:+.{digits}f}{ends}"


COST_HEAD = [
    "trained parameters (M)",
    "branch MFLOP",
    "forward MFLOP",
    "restore MFLOP",
    "s a megapixel",
    "steps",
    "training minutes",
]


def overview(study: Study, rows: list[Row]) -> Table:
    """Returns costs and mean differences over all images: a line a variant, a column a metric."""
    head = ["variant", "seeds", *COST_HEAD]
    head += [f"{METRICS[key].label} {METRICS[key].arrow}" for key in study.metrics]
    body = []
    for name in named_lines(study, rows):
        own = {}
        for row in rows:
            if row["variant"] == name and row["degradation"] == ALL:
                own[row["metric"]] = row
        if not own:
            body.append([name, "0", *[NONE] * (len(head) - 2)])
            continue
        seeds = max(row["seeds"] for row in own.values())
        shown = f"{name} (values)" if name == study.full else name
        costs = cost_cells(next(iter(own.values())))
        scores = [score_cell(own.get(key), key, name == study.full) for key in study.metrics]
        body.append([shown, str(seeds), *costs, *scores])
    return "Variant - full, all images", head, body


def cost_cells(row: Row) -> list[str]:
    """Returns the cells below COST_HEAD; NONE where a cost does not apply."""
    cells = [number(row["trained_parameters"], 1e-6, 3)]
    for kind in ("branch", "forward", "restore"):
        cell = number(row[f"{kind}_flops"], 1e-6, 0)
        share = row[f"{kind}_flops_of_full"]
        cells.append(cell if share is None else f"{cell} ({share:.2f} of full)")
    cells += [number(row["seconds_per_megapixel"], 1, 2), number(row["steps"], 1, 0)]
    return [*cells, number(row["seconds"], 1 / 60, 1)]


def number(value: float | None, scale: float, decimals: int) -> str:
    """Returns a number times `scale`, or NONE."""
    return NONE if value is None else f"{value * scale:.{decimals}f}"


def score_cell(row: Row | None, key: str, is_full: bool) -> str:
    """Returns the full model's value, or a variant's difference with its finding."""
    if row is None:
        return NONE
    if is_full:
        return f"{row['value']:.{METRICS[key].decimals}f}"
    return f"{signed(key, row['difference'], row['low'], row['high'])} {row['finding']}"


def beside_paper(study: Study, rows: list[Row]) -> Table | None:
    """Returns the published differences and one's own, with the verdict; None if no variant has a
    row in the paper.
    """
    head = [
        "table",
        "row",
        "variant",
        "metric",
        "paper",
        "paper, full",
        "paper, difference",
        "here",
        "here, full",
        "here, difference",
        "verdict",
    ]
    body = []
    for row in rows:
        if not row["verdict"]:
            continue
        paper, key = study.variants[row["variant"]].paper, row["metric"]
        digits = METRICS[key].decimals
        cells = [
            str(paper.table),
            paper.row,
            row["variant"],
            f"{METRICS[key].label} {METRICS[key].arrow}",
        ]
        cells += [
            f"{row['paper_value']:.4f}",
            f"{row['paper_full']:.4f}",
            f"{row['paper_difference']:+.4f}",
        ]
        cells += [
            f"{row['value']:.{digits}f}",
            f"{row['full']:.{digits}f}",
            signed(key, row["difference"], row["low"], row["high"]),
        ]
        body.append([*cells, row["verdict"]])
    return (
        ("Beside the paper's tables (its images and budget are others)", head, body)
        if body
        else None
    )


def by_degradation(study: Study, rows: list[Row], key: str) -> Table:
    """Returns variant - full of one metric: a line a variant, a column a degradation.

    The full model's own values come first.
    """
    own = [row for row in rows if row["metric"] == key]
    counts = {row["degradation"]: row["images"] for row in own}
    decimals = METRICS[key].decimals
    body = []
    for name in named_lines(study, rows):
        by_kind = {row["degradation"]: row for row in own if row["variant"] == name}
        cells = [f"{name} (values)" if name == study.full else name]
        for kind in counts:
            row = by_kind.get(kind)
            if row is None:
                cells.append(NONE)
            elif name == study.full:
                cells.append(f"{row['value']:.{decimals}f}")
            else:
                cells.append(signed(key, row["difference"], row["low"], row["high"]))
        body.append(cells)
    title = f"{METRICS[key].label}, {METRICS[key].direction}"
    return title, ["variant", *(f"{kind} ({n})" for kind, n in counts.items())], body


def values_by_degradation(study: Study, rows: list[Row], key: str) -> Table:
    """Returns the values of one metric: a line a variant, a column a degradation."""
    own = [row for row in rows if row["metric"] == key]
    counts = {row["degradation"]: row["images"] for row in own}
    by_place = {(row["variant"], row["degradation"]): row for row in own}
    body = []
    for name in named_lines(study, rows):
        rows_of = [by_place.get((name, kind)) for kind in counts]
        body.append([name, *(value_cell(row, key) for row in rows_of)])
    title = f"{METRICS[key].label} of each variant, {METRICS[key].direction}"
    return title, ["variant", *(f"{kind} ({n})" for kind, n in counts.items())], body


def value_cell(row: Row | None, key: str) -> str:
    """Returns 0.3456 [0.3300, 0.3612]; no brackets without an interval."""
    if row is None:
        return NONE
    digits = METRICS[key].decimals
    low = row["value_low"]
    high = row["value_high"]
    ends = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{row['value']:.{digits}f}{ends}"


def notes(study: Study, rows: list[Row], tested: list[Tested], about: dict[str, Any]) -> list[str]:
    """Returns what a reader of the tables must know."""
    one = tested[0]
    images = one.count(ALL)
    for row in rows:
        if row["interval_over"] == CROSSED and row["degradation"] == ALL:
            images = row["images"]
            break
    said = [f"{key}: {value}" for key, value in about.items()]
    said.append(
        f"Seeds {', '.join(map(str, study.seeds))}; {images} test images,"
        f" {one.scores.summary['image_rule']}."
    )
    if study.minutes is not None:
        said.append(
            f"Every run trained for {study.minutes:g} min, without validation: steps differ."
        )
    said += [METHOD, f"Tables of each variant: {VALUES}"]
    said.append(
        f"FLOPs and seconds: one image of {one.cost['image']} pixels (torch.utils.flop_counter; one"
        f" process on the CPU). Code: commit {', '.join(commits(tested))}."
    )
    for key, metric in one.scores.summary["metrics"].items():
        if metric["status"] != "computed":
            said.append(f"{METRICS[key].label}: {metric['status']}")
    return said


def write_results(
    study: Study, tested: list[Tested], folder: Path, about: dict[str, Any]
) -> list[Row]:
    """Write every file; returns the rows of results.csv."""
    rows = table(study, tested)
    tables = [overview(study, rows)]
    if (beside := beside_paper(study, rows)) is not None:
        tables.append(beside)
    scored = {row["metric"] for row in rows}
    shown = [key for key in study.metrics if key in scored]
    tables += [values_by_degradation(study, rows, key) for key in shown]
    tables += [by_degradation(study, rows, key) for key in shown]
    remarks = [escaping.markdown(note) for note in notes(study, rows, tested, about)]
    parts = ["\n".join(f"- {remark}" for remark in remarks)]
    for title, head, body in tables:
        parts.append(f"## {escaping.markdown(title)}\n\n{markdown(head, body)}")
    write_bytes(folder / CSV, csv_file.table(rows).encode())
    write_bytes(folder / MARKDOWN, ("\n\n".join(parts) + "\n").encode())
    texts = [latex(head, body, f"{title}. {METHOD}") for title, head, body in tables]
    write_bytes(folder / LATEX, ("\n\n".join(texts) + "\n").encode())
    figure = forest(study, rows)
    write_bytes(folder / f"{PLOT}.svg", svg(figure).encode())
    write_bytes(folder / f"{PLOT}.png", png(figure))
    if (gained := gains(study, rows)) is not None:
        write_bytes(folder / f"{GAINS}.png", png(gained))
    learned = curves([one.run for one in tested])
    write_bytes(folder / f"{CURVES}.csv", csv_file.table(learned).encode())
    write_bytes(folder / f"{CURVES}.png", png(picture(study, learned)))
    return rows
