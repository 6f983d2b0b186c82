"""From the tests of all runs to paired differences: one row a variant, metric and degradation."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lit_mimdit.ablation.runs import COST, Run
from lit_mimdit.ablation.statistics import crossed_interval
from lit_mimdit.ablation.study import Study
from lit_mimdit.evaluation import report
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.published import ABLATIONS, read_ablation
from lit_mimdit.evaluation.summary import ALL
from lit_mimdit.routing.statistics import t_interval

Row = dict[str, Any]
Finding = Literal["variant worse", "variant better", "undecided", "no interval"]
CROSSED, SEEDS = "seeds x images", "seeds"
CONFIRMED, NOT_CONFIRMED, UNDECIDED, NO_INTERVAL = (
    "confirmed in the small",
    "not confirmed",
    "undecided",
    "no interval",
)


@dataclass
class Tested:
    """A finished run: its scores as `test` wrote them, and its cost."""

    run: Run
    scores: report.Run
    cost: dict[str, Any]

    def count(self, degradation: str) -> int:
        """Images of one degradation or all."""
        return sum(degradation in (ALL, row["degradation"]) for row in self.scores.scores)

    def by_image(self, key: str, degradation: str) -> dict[str, float]:
        """Scores of the restored images by id, of one degradation or all."""
        rows = [
            row
            for row in self.scores.scores
            if degradation in (ALL, row["degradation"]) and row.get(f"restored_{key}")
        ]
        return {row["dataset"] + row["id"]: float(row[f"restored_{key}"]) for row in rows}

    def of_set(self, key: str, degradation: str) -> float:
        """A score of all images together (FID); NaN if there is none."""
        for group in self.scores.summary["groups"]:
            value = group["versions"]["restored"].get(key)
            if (
                group["degradation"] == degradation
                and value is not None
                and value["mean"] is not None
            ):
                return value["mean"]
        return math.nan


def read_runs(runs: list[Run]) -> list[Tested]:
    """Those that are finished."""
    return [
        Tested(
            run,
            report.read_run(run.folder / "test"),
            json.loads((run.folder / COST).read_text(encoding="utf-8")),
        )
        for run in runs
        if run.done
    ]


def finding(low: float, high: float, higher: bool) -> Finding:
    """What an interval of variant - full says; NaN ends are none (one seed)."""
    if not (low > 0 or high < 0):
        return NO_INTERVAL if math.isnan(low) else UNDECIDED
    return "variant better" if (low > 0) == higher else "variant worse"


def verdict(low: float, high: float, published: float) -> str:
    """Does the published difference variant - full appear? Only an interval wholly on its side
    confirms it.
    """
    if not (low > 0 or high < 0):
        return NO_INTERVAL if math.isnan(low) else UNDECIDED
    return CONFIRMED if (low > 0) == (published > 0) else NOT_CONFIRMED


def published_difference(study: Study, variant: str, key: str) -> tuple[float, float] | None:
    """(variant, full) in the paper's table; None if the paper has no such row or column."""
    row, column = study.variants[variant].paper, METRICS[key].published
    if row is None or column is None:
        return None
    table = read_ablation(row.table)
    column = column.replace("-", "")  # CLIP-IQA of tables 1 and 2 is CLIPIQA in 3 to 5
    if column not in table[row.row]:
        return None
    return table[row.row][column], table[ABLATIONS[row.table][1]][column]


def differences(
    own: list[Tested], full: list[Tested], key: str, degradation: str
) -> tuple[np.ndarray, np.ndarray, str]:
    """Scores of a variant and of the full model, paired by seed (rows) and image (columns; one
    column for a score of the set).
    """
    pairs = [(a, b) for a in own for b in full if a.run.seed == b.run.seed]
    if METRICS[key].needs == "set":
        values = [[one.of_set(key, degradation) for one in pair] for pair in pairs]
        array = np.array(values, dtype=np.float64).reshape(-1, 2)
        array = array[np.isfinite(array).all(1)]
        return array[:, :1], array[:, 1:], SEEDS
    scores = [[one.by_image(key, degradation) for one in pair] for pair in pairs]
    images = (
        sorted(set.intersection(*(set(one) for pair in scores for one in pair))) if scores else []
    )
    arrays = [np.array([[pair[side][id] for id in images] for pair in scores]) for side in (0, 1)]
    return arrays[0], arrays[1], CROSSED


def table(study: Study, tested: list[Tested]) -> list[Row]:
    """Rows of all variants, metrics and degradations that have a number; those of the full model
    have no difference.
    """
    by_variant = {
        name: [one for one in tested if one.run.variant == name] for name in study.variants
    }
    full = by_variant[study.full]
    kinds = [
        *sorted(
            {row["degradation"] for one in full for row in one.scores.scores if row["degradation"]}
        ),
        ALL,
    ]
    rows = []
    for name, own in by_variant.items():
        for key in study.metrics:
            for kind in kinds:
                a, b, method = differences(own, full, key, kind)
                if a.size:
                    images = a.shape[1] if method == CROSSED else own[0].count(kind)
                    rows.append(
                        _row(study, name, key, kind, a, b, method, images) | _cost(own, full)
                    )
    return rows


def _row(
    study: Study,
    name: str,
    key: str,
    kind: str,
    a: np.ndarray,
    b: np.ndarray,
    method: str,
    images: int,
) -> Row:
    row: Row = {
        "variant": name,
        "metric": key,
        "degradation": kind,
        "seeds": len(a),
        "images": images,
    }
    row |= {"value": a.mean(), "full": b.mean()}
    mean, low, high = (
        (float(np.squeeze(x)) for x in t_interval(a - b))
        if method == SEEDS
        else crossed_interval(a - b)
    )
    if name == study.full:
        mean, low, high, method = (math.nan,) * 3 + ("",)
    row |= {"difference": mean, "low": low, "high": high, "interval_over": method}
    row["finding"] = finding(low, high, METRICS[key].higher) if method else ""
    published = published_difference(study, name, key) if kind == ALL else None
    row |= {
        "paper_value": math.nan,
        "paper_full": math.nan,
        "paper_difference": math.nan,
        "verdict": "",
    }
    if published is not None and method:
        apart = published[0] - published[1]
        row |= {
            "paper_value": published[0],
            "paper_full": published[1],
            "paper_difference": apart,
            "verdict": verdict(low, high, apart),
        }
    return row


def _cost(own: list[Tested], full: list[Tested]) -> Row:
    cost, base = own[0].cost, full[0].cost
    names = ("trained_parameters", "branch_flops", "forward_flops")
    return {name: cost[name] for name in names} | {
        f"{name}_of_full": cost[name] / base[name] for name in names
    }


def commits(tested: list[Tested]) -> list[str]:
    """Of the code that restored."""
    return sorted(
        {str((one.scores.summary.get("restoration") or {}).get("commit")) for one in tested}
    )
