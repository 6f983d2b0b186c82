"""Table 6 of a study as cells of text, for Markdown, LaTeX and pages."""

import math
from typing import NamedTuple

from lit_mimdit.csv_file import Row
from lit_mimdit.routing import study
from lit_mimdit.routing.study import RoutingStudy
from lit_mimdit.routing.table6 import TYPES, Interval


class Preferences(NamedTuple):
    """Table 6 of a study.

    Args:
        names: the study's degradation of each column of the paper that it has.
        rows: a row a degradation and group.
        weights: mean Inter weights with intervals.
        contrasts: these less the group's mean over the degradations.
    """

    names: dict[str, str]
    rows: list[Row]
    weights: Interval
    contrasts: Interval


def preferences_of(of: RoutingStudy) -> Preferences | None:
    """Table 6 of a study; None if it has no degradation of the paper's table."""
    names = {name: kind for name, kind in TYPES.items() if kind in of.degradations}
    return Preferences(names, *study.degradation_table(of, names)) if names else None


def table6_cells(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns head and body of table 6, a line a degradation.

    Each group has its weights with intervals, beside the published ones where the paper has them.
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
            cells.append(_interval(row, "mean", "low", "high"))
            if published:
                cells.append(f"{row['published']:.4f}")
        body.append(cells)
    return head, body


def verdict_cells(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns head and body of the verdicts on published preferences, a line a degradation and
    group.
    """
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
        cells = [
            row["degradation"],
            row["group"],
            f"{row['published']:.3f}",
            _interval(row, "mean", "low", "high"),
            row["against_equal_share"],
            f"{row['published_contrast']:+.3f}",
            _interval(row, "contrast", "contrast_low", "contrast_high"),
            row["against_own_mean"],
        ]
        body.append(cells)
    return head, body


def _interval(row: Row, mean: str, low: str, high: str) -> str:
    """A mean with its interval, contrasts with their sign; no interval where it is not known."""
    sign = "+" if mean == "contrast" else ""
    ends = "" if math.isnan(row[low]) else f" [{row[low]:{sign}.3f}, {row[high]:{sign}.3f}]"
    return f"{row[mean]:{sign}.3f}{ends}"


def caption(of: RoutingStudy) -> str:
    """Returns a sentence on what the intervals of table 6 are."""
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
