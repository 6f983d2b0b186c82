"""The files of a study's results:

results.csv, results.md, results.tex, a plot, and how the runs learned.
"""

import math
from pathlib import Path
from typing import Any

from lit_mimdit import escaping
from lit_mimdit.ablation.curves import curves, picture
from lit_mimdit.ablation.picture import forest
from lit_mimdit.ablation.results import CROSSED, Row, Tested, commits, table
from lit_mimdit.ablation.study import Study
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.summary import ALL
from lit_mimdit.evaluation.tables import NONE, latex, markdown
from lit_mimdit.files import write_bytes
from lit_mimdit.routing.outputs import as_csv
from lit_mimdit.routing.pictures import png, svg

CSV, MARKDOWN, LATEX, PLOT, CURVES = "results.csv", "results.md", "results.tex", "results", "curves"
METHOD = (
    "Brackets: 95% intervals of variant - full, paired by seed and image, for other trainings and"
    " other images (seeds and images crossed, both random: Dorfman, Berbaum, Metz 1992,"
    " Satterthwaite 1946); of FID a t interval over the seeds, images fixed. Not corrected for the"
    " number of comparisons."
)
Table = tuple[str, list[str], list[list[str]]]  # title, head, body


def signed(key: str, mean: float, low: float, high: float) -> str:
    """+0.0123 [+0.0010, +0.0236]; no brackets without an interval."""
    digits = METRICS[key].decimals
    ends = "" if math.isnan(low) else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return NONE if math.isnan(mean) else f"{mean:+.{digits}f}{ends}"


def overview(study: Study, rows: list[Row]) -> Table:
    """Costs and mean differences over all images: a line a variant, a column a metric."""
    head = ["variant", "seeds", "trained parameters (M)", "branch MFLOP", "forward MFLOP"]
    head += [f"{METRICS[key].label} {METRICS[key].arrow}" for key in study.metrics]
    body = []
    for name in study.variants:
        own = {
            row["metric"]: row
            for row in rows
            if row["variant"] == name and row["degradation"] == ALL
        }
        if not own:
            body.append([name, "0", *[NONE] * (len(head) - 2)])
            continue
        one = next(iter(own.values()))
        cells = [
            name + (" (values)" if name == study.full else ""),
            str(max(row["seeds"] for row in own.values())),
        ]
        cells += [f"{one['trained_parameters'] / 1e6:.3f}"]
        cells += [
            f"{one[f'{kind}_flops'] / 1e6:.0f} ({one[f'{kind}_flops_of_full']:.2f} of full)"
            for kind in ("branch", "forward")
        ]
        for key in study.metrics:
            row = own.get(key)
            if row is None:
                cells.append(NONE)
            elif name == study.full:
                cells.append(f"{row['value']:.{METRICS[key].decimals}f}")
            else:
                cells.append(
                    f"{signed(key, row['difference'], row['low'], row['high'])} {row['finding']}"
                )
        body.append(cells)
    return "Variant - full, all images", head, body


def beside_paper(study: Study, rows: list[Row]) -> Table | None:
    """The published differences and one's own, with the verdict; None if no variant has a row in
    the paper.
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
    """Variant - full of one metric:

    a line a variant, a column a degradation; the full model's own values first.
    """
    own = [row for row in rows if row["metric"] == key]
    kinds = list(dict.fromkeys(row["degradation"] for row in own))
    counts = {row["degradation"]: row["images"] for row in own}
    body = []
    for name in study.variants:
        cells = {row["degradation"]: row for row in own if row["variant"] == name}
        if name == study.full:
            shown = [
                f"{cells[kind]['value']:.{METRICS[key].decimals}f}" if kind in cells else NONE
                for kind in kinds
            ]
            body.append([f"{name} (values)", *shown])
        else:
            found = [cells.get(kind) for kind in kinds]
            body.append(
                [
                    name,
                    *(
                        signed(key, r["difference"], r["low"], r["high"]) if r else NONE
                        for r in found
                    ),
                ]
            )
    return (
        f"{METRICS[key].label}, {METRICS[key].direction}",
        ["variant", *(f"{kind} ({counts[kind]})" for kind in kinds)],
        body,
    )


def notes(study: Study, rows: list[Row], tested: list[Tested], about: dict[str, Any]) -> list[str]:
    """What a reader of the tables must know."""
    one = tested[0]
    images = next(
        (
            row["images"]
            for row in rows
            if row["interval_over"] == CROSSED and row["degradation"] == ALL
        ),
        0,
    )
    found = [f"{key}: {value}" for key, value in about.items()]
    found += [
        f"Seeds {', '.join(map(str, study.seeds))}; {images or one.count(ALL)} test images,"
        f" {one.scores.summary['image_rule']}."
    ]
    found += [
        METHOD,
        (
            f"FLOPs: one image of {one.cost['image']} pixels (torch.utils.flop_counter). Code:"
            f" commit {', '.join(commits(tested))}."
        ),
    ]
    for key, metric in one.scores.summary["metrics"].items():
        if metric["status"] != "computed":
            found.append(f"{METRICS[key].label}: {metric['status']}")
    return found


def write_results(
    study: Study, tested: list[Tested], folder: Path, about: dict[str, Any]
) -> list[Row]:
    """Write every file; returns the rows of results.csv."""
    rows = table(study, tested)
    tables = [overview(study, rows), beside_paper(study, rows)]
    tables += [
        by_degradation(study, rows, key)
        for key in study.metrics
        if any(row["metric"] == key for row in rows)
    ]
    remarks = notes(study, rows, tested, about)
    parts = ["\n".join(f"- {escaping.markdown(note)}" for note in remarks)]
    parts += [
        f"## {escaping.markdown(title)}\n\n{markdown(head, body)}"
        for title, head, body in filter(None, tables)
    ]
    write_bytes(folder / CSV, as_csv(rows).encode())
    write_bytes(folder / MARKDOWN, ("\n\n".join(parts) + "\n").encode())
    texts = [latex(head, body, f"{title}. {METHOD}") for title, head, body in filter(None, tables)]
    write_bytes(folder / LATEX, ("\n\n".join(texts) + "\n").encode())
    figure = forest(study, rows)
    write_bytes(folder / f"{PLOT}.svg", svg(figure).encode())
    write_bytes(folder / f"{PLOT}.png", png(figure))
    learned = curves([one.run for one in tested])
    write_bytes(folder / f"{CURVES}.csv", as_csv(learned).encode())
    write_bytes(folder / f"{CURVES}.png", png(picture(study, learned)))
    return rows
