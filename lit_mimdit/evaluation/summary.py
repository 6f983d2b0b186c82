"""From scores of images to what is reported: means with bootstrap intervals by degradation, FID,
and what failed.

Only finite scores are averaged; each mean has its own N, and every image without a score is listed
by name with its reason.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from lit_mimdit.evaluation import fid
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.record import Row

FORMAT = "lit_mimdit.summary.1"
ALL = "all"
RESAMPLES, LEVEL = 2000, 0.95


def bootstrap(values: np.ndarray, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Percentile interval (95%) of the mean of (N,) values over images drawn with replacement
    (Efron, 1979); NaN for N = 1.

    Depends on the values, their order and the seed alone.
    """
    if len(values) < 2:
        return math.nan, math.nan
    draw = np.random.default_rng(seed)
    block = max(1, 4_000_000 // len(values))  # resamples at once
    counts = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = np.concatenate(
        [values[draw.integers(0, len(values), (count, len(values)))].mean(1) for count in counts]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_of(values: list[float], seed: int, resamples: int = RESAMPLES) -> dict[str, Any]:
    """{"mean", "low", "high", "n"}; None where there is no number."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return {"mean": None, "low": None, "high": None, "n": 0}
    low, high = bootstrap(array, seed, resamples)
    finite = {
        name: None if math.isnan(value) else value for name, value in (("low", low), ("high", high))
    }
    return {"mean": math.fsum(values) / len(values)} | finite | {"n": len(values)}


def groups_of(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Sorted (dataset, degradation) of all rows; each data set ends with "all", the pool."""
    pairs = {(row.dataset, row.degradation) for row in rows}
    found: list[tuple[str, str]] = []
    for dataset in sorted({dataset for dataset, _ in pairs}):
        names = sorted(name for where, name in pairs if where == dataset)
        found += [(dataset, name) for name in names if name] + [(dataset, ALL)]
    return found


def group_rows(rows: Iterable[Row], group: tuple[str, str]) -> list[Row]:
    """The rows of a group."""
    return [row for row in rows if row.dataset == group[0] and group[1] in (ALL, row.degradation)]


def set_score(
    key: str,
    rows: list[Row],
    references: dict[tuple[str, str], Row],
    features: np.ndarray,
    pooled: bool,
) -> dict[str, Any] | None:
    """FID of rows against the references of the same images; torchmetrics' slow one for pooled
    images only.
    """
    known = [
        (row.feature, references.get((row.dataset, row.id)))
        for row in rows
        if row.feature is not None
    ]
    both = [
        (own, other.feature)
        for own, other in known
        if other is not None and other.feature is not None
    ]
    if key == "fid_torchmetrics" and not pooled:
        return None
    distance = fid.frechet_torchmetrics if key == "fid_torchmetrics" else fid.frechet
    own, other = ([pair[side] for pair in both] for side in (0, 1))
    value = distance(features[own], features[other]) if len(both) > 1 else math.nan
    return {
        "mean": value if math.isfinite(value) else None,
        "low": None,
        "high": None,
        "n": len(both),
    }


def gain_of(
    key: str, better: list[Row], worse: dict[str, Row], seed: int, resamples: int
) -> dict[str, Any]:
    """Mean of better - worse over images that have both, its interval, and how many images
    improved, got worse, or tied.
    """
    pairs = [
        (r.scores[key], worse[r.id].scores[key])
        for r in better
        if key in r.scores and r.id in worse and key in worse[r.id].scores
    ]
    sign = 1.0 if METRICS[key].higher else -1.0
    differences = [own - other for own, other in pairs]
    counts = {name: sum(test(sign * d) for d in differences) for name, test in _OUTCOMES.items()}
    return mean_of(differences, seed, resamples) | counts


_OUTCOMES = {"better": lambda d: d > 0, "worse": lambda d: d < 0, "tied": lambda d: d == 0}


def summarise(
    rows: list[Row],
    features: np.ndarray,
    metrics: dict[str, dict[str, Any]],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Groups, failures and intervals of rows in any order; the same rows in another order, or from
    several processes, give the same.

    Args:
        rows: of all versions; those of version "reference" hold features only.
        features: (rows, 2048), see Row.feature.
        metrics: see Scorer.describe; those not computed are carried along as such.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    rows = sorted(rows, key=lambda row: (row.dataset, row.degradation, row.id, row.version))
    references = {(row.dataset, row.id): row for row in rows if row.version == "reference"}
    scored = [row for row in rows if row.version != "reference"]
    versions = sorted(
        {row.version for row in scored}, key=lambda v: (v != "degraded", v != "restored", v)
    )
    keys = [key for key, about in metrics.items() if about["status"] == "computed"]
    groups = []
    for group in groups_of(scored):
        members = group_rows(scored, group)
        by_version = {
            version: [row for row in members if row.version == version] for version in versions
        }
        entry: dict[str, Any] = {
            "dataset": group[0],
            "degradation": group[1],
            "n": len({row.id for row in members}),
            "versions": {},
            "gain": {},
        }
        for version, own in by_version.items():
            values: dict[str, Any] = {}
            for key in keys:
                if METRICS[key].needs == "set":
                    value = set_score(key, own, references, features, pooled=group[1] == ALL)
                    values |= {} if value is None else {key: value}
                else:
                    values[key] = mean_of(
                        [row.scores[key] for row in own if key in row.scores], seed, resamples
                    )
            entry["versions"][version] = values
        if {"degraded", "restored"} <= by_version.keys():
            worse = {row.id: row for row in by_version["degraded"]}
            single = [key for key in keys if METRICS[key].needs != "set"]
            entry["gain"] = {
                key: gain_of(key, by_version["restored"], worse, seed, resamples) for key in single
            }
        groups.append(entry)
    failed = [
        {
            "dataset": row.dataset,
            "id": row.id,
            "version": row.version,
            "metric": key,
            "reason": reason,
        }
        for row in rows
        for key, reason in row.errors.items()
    ]
    tiled = {
        key: sum(key in row.tiles for row in scored)
        for key in keys
        if any(key in row.tiles for row in scored)
    }
    return {
        "format": FORMAT,
        "metrics": metrics,
        "versions": versions,
        "groups": groups,
        "failed": failed,
        "tiled_images": tiled,
        "sizes": _sizes(scored),
        "bootstrap": {
            "resamples": resamples,
            "seed": seed,
            "level": LEVEL,
            "method": "percentile, images with replacement",
        },
    }


def _sizes(rows: list[Row]) -> dict[str, int]:
    """Images of each size, "width x height"."""
    sizes = {(row.dataset, row.id): (row.width, row.height) for row in rows}
    counts: dict[str, int] = {}
    for width, height in sorted(sizes.values()):
        name = f"{width} x {height}"
        counts[name] = counts.get(name, 0) + 1
    return counts
