"""The folder of a routing study:

CSV tables, table 6 as Markdown and LaTeX, pictures, and one page of all of it.
"""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lit_mimdit import csv_file
from lit_mimdit.escaping import csv_cell
from lit_mimdit.evaluation.page import Page
from lit_mimdit.evaluation.tables import latex, markdown
from lit_mimdit.files import write_bytes
from lit_mimdit.routing import pictures, study
from lit_mimdit.routing.study import ALL, DEAD_BELOW, Row, Study
from lit_mimdit.routing.table6 import TYPES, Interval, agreement, published_for

FORMAT = "lit_mimdit.routing.1"
TABLES = ("table6", "degradations", "blocks", "sub_experts", "routers", "severity", "records")


def as_csv(rows: list[Row]) -> str:
    """Rows of the same columns; numbers with 6 significant digits, none where there is no number."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else ["nothing"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return "" if math.isnan(value) else f"{value:.6g}"
    return csv_cell(value) if isinstance(value, str) else value


def read_csv(path: Path) -> list[Row]:
    """A table of a study's folder; numbers as numbers, NaN where there is none."""
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
    return [
        {k: value if k in text else csv_file.number(value or "nan") for k, value in row.items()}
        for row in csv_file.read(path)
    ]


def table6_cells(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and body of table 6:

    a line a degradation, one's own weights with intervals and the published ones.
    """
    groups = list(dict.fromkeys(row["group"] for row in rows))
    published = "published" in rows[0]
    head = ["degradation", "N"]
    for group in groups:
        head += [group, f"{group}, paper"] if published else [group]
    body = []
    for name in dict.fromkeys(row["degradation"] for row in rows):
        own = [row for row in rows if row["degradation"] == name]
        cells = [name, str(own[0]["images"])]
        for row in own:
            interval = "" if math.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
            cells += (
                [f"{row['mean']:.3f}{interval}", f"{row['published']:.4f}"]
                if published
                else [f"{row['mean']:.3f}{interval}"]
            )
        body.append(cells)
    return head, body


def verdict_cells(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and body of what appears: a line a degradation and group."""
    head = [
        "degradation",
        "group",
        "paper",
        "this study",
        "against an equal share",
        "contrast, paper",
        "contrast",
        "against the own mean",
    ]
    body = []
    for row in rows:
        own, apart = (
            _interval(row, *keys)
            for keys in (("mean", "low", "high"), ("contrast", "contrast_low", "contrast_high"))
        )
        cells = [
            row["degradation"],
            row["group"],
            f"{row['published']:.3f}",
            own,
            row["against_equal_share"],
        ]
        body.append([*cells, f"{row['published_contrast']:+.3f}", apart, row["against_own_mean"]])
    return head, body


def _interval(row: Row, mean: str, low: str, high: str) -> str:
    sign = "+" if mean == "contrast" else ""
    ends = "" if math.isnan(row[low]) else f" [{row[low]:{sign}.3f}, {row[high]:{sign}.3f}]"
    return f"{row[mean]:{sign}.3f}{ends}"


def caption(of: Study) -> str:
    """What the intervals of table 6 are."""
    count = len(of.checkpoints)
    if count > 1:
        return (
            f"Mean Inter-MoE weights over images and blocks; mean of {count} trainings, 95% t"
            " intervals over them"
        )
    return (
        "Mean Inter-MoE weights over images and blocks; 95% intervals over images, which say"
        " nothing of another training"
    )


def write_study(folder: Path, of: Study, permutations: int, seed: int) -> dict[str, Any]:
    """Write every file; returns the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    every, _, _ = study.degradation_table(of, {name: name for name in of.degradations})
    here = {name: kind for name, kind in TYPES.items() if kind in of.degradations}
    six, weights, contrasts = study.degradation_table(of, here) if here else ([], None, None)
    tables = {
        "table6": six,
        "degradations": every,
        "blocks": study.block_table(of),
        "sub_experts": study.sub_expert_table(of),
    }
    tables["routers"] = study.router_table(of, permutations, seed)
    tables["severity"] = study.severity_table(of, permutations, seed)
    tables["records"] = study.record_table(of)
    for name in TABLES:
        if tables[name]:
            write_bytes(folder / f"{name}.csv", as_csv(tables[name]).encode())
        else:
            (folder / f"{name}.csv").unlink(missing_ok=True)  # of a study before
    published = published_for(list(here), of.groups)
    health = [h.sentences(of.groups) if h is not None else None for h in study.health(of)]
    summary: dict[str, Any] = {
        "format": FORMAT,
        "checkpoints": of.checkpoints,
        "groups": of.groups,
        "top_k": of.top_k,
    } | of.about
    summary["health"] = dict(zip(of.checkpoints, health, strict=True))
    if published is not None and len(here) > 1:
        summary["agreement_with_table6"] = agreement(weights.mean, published)
        for kind in ("against_equal_share", "against_own_mean"):
            summary[kind] = {
                word: sum(row[kind] == word for row in six)
                for word in ("appears", "opposite", "undecided")
            }
    if six:
        head, body = table6_cells(six)
        write_bytes(folder / "table6.md", f"{caption(of)}.\n\n{markdown(head, body)}\n".encode())
        write_bytes(folder / "table6.tex", (latex(head, body, caption(of)) + "\n").encode())
    write_bytes(folder / "routing.json", (json.dumps(summary, indent=1) + "\n").encode())
    write_page(folder, of, tables, summary, (here, weights, contrasts) if here else None)
    return summary


class Gallery:
    """Adds pictures to a page, and writes each as SVG and PNG beside it."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder

    def add(self, figure: Any, name: str, text: str) -> None:
        self.page.svg(pictures.svg(figure), name, text)
        write_bytes(self.folder / "pictures" / f"{name}.png", pictures.png(figure))


def write_page(
    folder: Path,
    of: Study,
    tables: dict[str, list[Row]],
    summary: dict[str, Any],
    six: tuple[dict[str, str], Interval, Interval] | None,
) -> None:
    """report.html and report.md."""
    page = Page("Routing: " + ", ".join(of.checkpoints), folder)
    gallery = Gallery(page, folder)
    page.pairs({key: str(value) for key, value in of.about.items()})
    if six is not None:
        _table6_part(page, gallery, of, tables["table6"], summary, *six)
    page.heading("By degradation", 2)
    means = _means(of)
    shown = {f"{name} ({len(of.rows(name))})": values.mean(0) for name, values in means.items()}
    whole = {"mean Inter weight": np.stack([values.mean(0) for values in shown.values()])}
    gallery.add(
        pictures.table_picture(whole, list(shown), of.groups, "All degradations (images)"),
        "degradations",
        "mean over blocks",
    )
    gallery.add(
        pictures.heat_maps(shown, of.groups, "Block by group"),
        "heat_maps",
        "mean Inter weights, block by group; white is an equal share",
    )
    gallery.add(
        pictures.depth(means, of.groups, "Along the depth"),
        "depth",
        "a thin line a checkpoint, the bold one their mean",
    )
    page.heading("Sub-experts", 2)
    for number, (checkpoint, records) in enumerate(zip(of.checkpoints, of.records, strict=True)):
        title = f"{checkpoint}: {len(records)} images, top {of.top_k}"
        picture = pictures.share_map(
            records.chosen.mean(0, dtype=np.float64), of.groups, title, DEAD_BELOW
        )
        gallery.add(
            picture,
            f"sub_experts_{number}",
            "share of the images that each sub-expert worked on; dead ones are crossed out",
        )
        said = summary["health"][checkpoint]
        page.items(
            said
            or [
                (
                    "no dead sub-expert, no collapsed router"
                    if said is not None
                    else "too few images to tell dead sub-experts"
                )
            ]
        )
    _severity_part(page, gallery, of, tables["severity"])
    page.heading("Files", 2)
    page.items([f"{name}.csv" for name in TABLES if tables[name]])
    page.write()


def _means(of: Study) -> dict[str, np.ndarray]:
    """(checkpoints, L, G) of each degradation, and of all images."""
    names = [*of.degradations, ALL]
    return {
        name: np.stack(
            [records.inter[of.rows(name)].mean(0, dtype=np.float64) for records in of.records]
        )
        for name in names
    }


def _table6_part(
    page: Page,
    gallery: Gallery,
    of: Study,
    rows: list[Row],
    summary: dict[str, Any],
    names: dict[str, str],
    weights: Interval,
    contrasts: Interval,
) -> None:
    page.heading("Table 6", 2)
    page.text(
        f"{caption(of)}. FoundIR types:"
        f" {', '.join(f'{name} = {kind}' for name, kind in names.items())}."
    )
    page.table(*table6_cells(rows))
    published = published_for(list(names), of.groups)
    apart = published - published.mean(0) if published is not None else None
    title = (
        "Table 6: bars this study, diamonds the paper"
        if published is not None
        else "Mean Inter weights"
    )
    figure = pictures.interval_bars(
        weights, published, list(names), of.groups, title, 1 / len(of.groups)
    )
    gallery.add(figure, "table6", "the dashed line is an equal share")
    figure = pictures.interval_bars(
        contrasts, apart, list(names), of.groups, "What each degradation prefers", 0.0
    )
    gallery.add(figure, "table6_contrasts", "weights less the group's mean over these degradations")
    if published is not None:
        both = {"published": published, "this study": weights.mean}
        gallery.add(
            pictures.table_picture(both, list(names), of.groups, "Table 6"),
            "table6_tables",
            "white is an equal share",
        )
        if about := summary.get("agreement_with_table6"):
            page.text(
                f"Rank correlation with the published table: {about['spearman_weights']:.2f} of the"
                f" weights, {about['spearman_contrasts']:.2f} of the contrasts; the same heaviest"
                f" group in {about['same_heaviest_group']} of {len(names)} degradations."
            )
        page.heading("Which published preferences appear", 3)
        page.text(
            "appears or opposite: the interval lies wholly on the published or on the other side;"
            " undecided: it covers the neutral value."
        )
        page.table(*verdict_cells(rows))


def _severity_part(page: Page, gallery: Gallery, of: Study, rows: list[Row]) -> None:
    page.heading("Light and heavy variants of one degradation", 2)
    source = of.about.get("severity", "not known")
    if not rows:
        page.text(
            f"Severity: {source}. Fewer than two severities of two images each, so there is nothing"
            " to test."
        )
        return
    page.text(
        f"Severity: {source}. Mutual information between severity and the chosen sub-experts, less"
        " its mean over permutations of the severities among the images of a degradation; q is"
        " corrected for the number of tests of a checkpoint."
    )
    shape = of.records[0].inter.shape[1:]
    for number, checkpoint in enumerate(of.checkpoints):
        own = [row for row in rows if row["checkpoint"] == checkpoint]
        names = list(dict.fromkeys(row["degradation"] for row in own))
        excess, q = ({name: np.zeros(shape) for name in names} for _ in range(2))
        for row in own:
            place = row["block"], of.labels.index(row["group"])
            excess[row["degradation"]][place] = max(
                row["information_bits"] - row["by_chance_bits"], 0.0
            )
            q[row["degradation"]][place] = row["q"]
        found = sum(row["q"] < 0.05 for row in own)
        title = f"{checkpoint}: severity and choice, {found} of {len(own)} routers with q < 0.05"
        gallery.add(
            pictures.severity_map(excess, q, of.groups, title),
            f"severity_{number}",
            "bits beyond chance, block by group; a star where q < 0.05",
        )
        strongest = sorted(own, key=lambda row: row["by_chance_bits"] - row["information_bits"])[:3]
        cases = {
            f"{r['degradation']}\nblock {r['block']} {r['group'][2:]}, q = {r['q']:.3f}": _by_level(
                of, number, r
            )
            for r in strongest
        }
        title = f"{checkpoint}: the routers that tell severities apart best"
        gallery.add(
            pictures.severity_bars(cases, title),
            f"severity_shares_{number}",
            "share of the images of each severity",
        )


def _by_level(of: Study, checkpoint: int, row: Row) -> dict[str, np.ndarray]:
    """Shares (E,) of each severity, of one router and degradation."""
    chosen = of.records[checkpoint].chosen[:, row["block"], of.labels.index(row["group"])]
    return {
        level: chosen[of.rows(row["degradation"], level)].mean(0)
        for level in row["severities"].split()
    }
