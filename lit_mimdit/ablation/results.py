"""Paired differences from the tests of all runs: one row a variant, metric and degradation."""

import json
import math
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np

from lit_mimdit.ablation.runs import COST, Run
from lit_mimdit.ablation.study import DEGRADED, Study
from lit_mimdit.csv_file import Row
from lit_mimdit.evaluation import report
from lit_mimdit.evaluation.intervals import crossed_interval, t_interval
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.published import ABLATIONS, read_ablation
from lit_mimdit.evaluation.summary import ALL

Finding = Literal["variant worse", "variant better", "undecided", "no interval"]
CROSSED, SEEDS = "seeds x images", "seeds"
RESTORED = "restored"  # the version of an image that is compared
CONFIRMED, NOT_CONFIRMED = "confirmed in the small", "not confirmed"
UNDECIDED, NO_INTERVAL = "undecided", "no interval"


@dataclass
class Tested:
    """A finished run: its scores as `test` wrote them, and its cost."""

    run: Run
    scores: report.Evaluation
    cost: dict[str, Any]

    def count(self, degradation: str) -> int:
        """Returns how many images there are of one degradation or of all."""
        return sum(degradation in (ALL, row["degradation"]) for row in self.scores.scores)

    def by_image(self, key: str, degradation: str, version: str = RESTORED) -> dict[str, float]:
        """Returns scores of one version of the images by id, of one degradation or all."""
        column = f"{version}_{key}"
        rows = [
            row
            for row in self.scores.scores
            if degradation in (ALL, row["degradation"]) and row.get(column)
        ]
        return {row["dataset"] + row["id"]: float(row[column]) for row in rows}

    def of_set(self, key: str, degradation: str, version: str = RESTORED) -> float:
        """Returns a score of all images together (FID); NaN if there is none."""
        for group in self.scores.summary["groups"]:
            value = group["versions"].get(version, {}).get(key)
            if (
                group["degradation"] == degradation
                and value is not None
                and value["mean"] is not None
            ):
                return value["mean"]
        return math.nan


def read_runs(runs: list[Run]) -> list[Tested]:
    """Reads the runs that are finished."""
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
    """Returns what an interval of variant - full says; NaN ends are none (one seed)."""
    if not (low > 0 or high < 0):
        return NO_INTERVAL if math.isnan(low) else UNDECIDED
    return "variant better" if (low > 0) == higher else "variant worse"


def verdict(low: float, high: float, published: float) -> str:
    """Returns whether the published difference variant - full appears.

    Only an interval wholly on its side confirms it.
    """
    if not (low > 0 or high < 0):
        return NO_INTERVAL if math.isnan(low) else UNDECIDED
    return CONFIRMED if (low > 0) == (published > 0) else NOT_CONFIRMED


def published_difference(study: Study, variant: str, key: str) -> tuple[float, float] | None:
    """(variant, full) in the paper's table; None if the paper has no such row or column."""
    row = study.variants[variant].paper if variant in study.variants else None
    column = METRICS[key].published
    if row is None or column is None:
        return None
    table = read_ablation(row.table)
    column = column.replace("-", "")  # CLIP-IQA of tables 1 and 2 is CLIPIQA in 3 to 5
    if column not in table[row.row]:
        return None
    return table[row.row][column], table[ABLATIONS[row.table][1]][column]


def differences(
    own: list[Tested], full: list[Tested], key: str, degradation: str, version: str = RESTORED
) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns scores of a variant and of the full model, paired by seed (rows) and image (columns;
    one column for a score of the set).

    The variant's are those of `version`, the full model's of its restored images.
    """
    pairs: Pairs = []
    for one in own:
        pairs += [(one, other) for other in full if other.run.seed == one.run.seed]
    if METRICS[key].needs == "set":
        return (*_of_sets(pairs, key, degradation, version), SEEDS)
    return (*_of_images(pairs, key, degradation, version), CROSSED)


Pairs = list[tuple[Tested, Tested]]  # variant and full model, of one seed each


def _of_sets(
    pairs: Pairs, key: str, degradation: str, version: str
) -> tuple[np.ndarray, np.ndarray]:
    """(seeds, 1) of the variant and of the full model, for seeds in which both have a number."""
    values = [[a.of_set(key, degradation, version), b.of_set(key, degradation)] for a, b in pairs]
    array = np.array(values, dtype=np.float64).reshape(-1, 2)
    array = array[np.isfinite(array).all(1)]
    return array[:, :1], array[:, 1:]


def _of_images(
    pairs: Pairs, key: str, degradation: str, version: str
) -> tuple[np.ndarray, np.ndarray]:
    """(seeds, images) of the variant and of the full model, for images that all runs scored."""
    own = [a.by_image(key, degradation, version) for a, _ in pairs]
    full = [b.by_image(key, degradation) for _, b in pairs]
    scored = [set(scores) for scores in own + full]
    images = sorted(set.intersection(*scored)) if scored else []
    return _matrix(own, images), _matrix(full, images)


def _matrix(scores: list[dict[str, float]], images: list[str]) -> np.ndarray:
    """A row a run, a column an image."""
    return np.array([[row[image] for image in images] for row in scores])


def table(study: Study, tested: list[Tested]) -> list[Row]:
    """Returns rows of all variants, metrics and degradations that have a number.

    Those of the full model have no difference. Those of DEGRADED are of the input, without costs.
    """
    full = [one for one in tested if one.run.variant == study.full]
    rows = _rows(study, DEGRADED, _scored_input(study, tested), full, DEGRADED)
    for name in study.variants:
        own = [one for one in tested if one.run.variant == name]
        rows += _rows(study, name, own, full, RESTORED)
    return rows


def named_lines(study: Study, rows: list[Row]) -> list[str]:
    """Returns the names of a table's lines: the input, where it was scored, and all variants."""
    scored = any(row["variant"] == DEGRADED for row in rows)
    return [*[DEGRADED] * scored, *study.variants]


def _rows(
    study: Study, name: str, own: list[Tested], full: list[Tested], version: str
) -> list[Row]:
    """Rows of one variant, or of the input."""
    rows = []
    for key, kind in product(study.metrics, [*degradations(full), ALL]):
        a, b, method = differences(own, full, key, kind, version)
        if not a.size:
            continue
        images = a.shape[1] if method == CROSSED else own[0].count(kind)
        about = {"variant": name, "metric": key, "degradation": kind}
        about |= {"seeds": len(a), "images": images}
        costs = _cost(own if version == RESTORED else [], full)
        rows.append(about | _compared(study, about, a, b, method) | costs)
    return rows


def _scored_input(study: Study, tested: list[Tested]) -> list[Tested]:
    """The runs of the first variant whose tests scored the degraded images, too."""
    for name in study.variants:
        own = [one for one in tested if one.run.variant == name]
        if any(one.by_image(key, ALL, DEGRADED) for one in own for key in study.metrics):
            return own
    return []


def degradations(tested: list[Tested]) -> list[str]:
    """Returns names of the degradations that the test images have, sorted."""
    names = set()
    for one in tested:
        names |= {row["degradation"] for row in one.scores.scores}
    return sorted(names - {""})


def _compared(study: Study, about: Row, a: np.ndarray, b: np.ndarray, method: str) -> Row:
    """Values of a variant and of the full model, their difference, and the paper's.

    Args:
        study: for the paper's rows.
        about: variant, metric and degradation.
        a: scores of the variant, (seeds, images) or (seeds, 1).
        b: of the full model, alike.
        method: CROSSED or SEEDS.
    """
    name = about["variant"]
    key = about["metric"]
    kind = about["degradation"]
    _, value_low, value_high = _interval(a, method)
    row = {"value": a.mean(), "value_low": value_low, "value_high": value_high, "full": b.mean()}
    if name == study.full:
        mean = low = math.nan
        high, method = math.nan, ""
    else:
        mean, low, high = _interval(a - b, method)
    row |= {"difference": mean, "low": low, "high": high, "interval_over": method}
    row["finding"] = finding(low, high, METRICS[key].higher) if method else ""
    published = published_difference(study, name, key) if kind == ALL else None
    return row | _beside(published if method else None, low, high)


def _interval(values: np.ndarray, method: str) -> tuple[float, float, float]:
    """Mean of (seeds, images) or (seeds, 1) and the ends of its interval; NaN ends are none."""
    if method == CROSSED:
        return crossed_interval(values)
    mean, low, high = (float(np.squeeze(end)) for end in t_interval(values))
    return mean, low, high


def _beside(published: tuple[float, float] | None, low: float, high: float) -> Row:
    """The paper's (variant, full), and what the interval of one's own difference says of them."""
    if published is None:
        names = ("paper_value", "paper_full", "paper_difference")
        return dict.fromkeys(names, math.nan) | {"verdict": ""}
    value, full = published
    return {
        "paper_value": value,
        "paper_full": full,
        "paper_difference": value - full,
        "verdict": verdict(low, high, value - full),
    }


COSTS = ("trained_parameters", "branch_flops", "forward_flops", "restore_flops")
SPENT = ("seconds_per_megapixel", "steps", "seconds")  # differ by run: means over the seeds


def _cost(own: list[Tested], full: list[Tested]) -> Row:
    """Costs of a variant, and over those of the full model; None where one does not apply."""
    row: Row = {}
    for name in COSTS:
        row[name] = own[0].cost.get(name) if own else None
    for name in COSTS:
        row[f"{name}_of_full"] = _share(row[name], full[0].cost.get(name))
    for name in SPENT:
        row[name] = _mean([one.cost.get(name) for one in own])
    return row


def _share(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def commits(tested: list[Tested]) -> list[str]:
    """Returns the commits of the code that restored, sorted."""
    return sorted(
        {str((one.scores.summary.get("restoration") or {}).get("commit")) for one in tested}
    )
