"""Scores of images become what is reported.

A summary has means with bootstrap intervals by degradation, FID, and what failed.

Only finite scores are averaged; each mean has its own N, and every image without a score is listed
by name with its reason.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_mimdit.evaluation import fid
from lit_mimdit.evaluation.intervals import LEVEL, RESAMPLES, bootstrap
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.record import ImageScores

FORMAT = "lit_mimdit.summary.1"
ALL = "all"


def mean_of(values: list[float], seed: int, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Returns the mean of values as {"mean", "low", "high", "n"}; None where there is no number."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return {"mean": None, "low": None, "high": None, "n": 0}
    low, high = bootstrap(array, seed, resamples)
    return {
        "mean": math.fsum(values) / len(values),
        "low": None if math.isnan(low) else low,
        "high": None if math.isnan(high) else high,
        "n": len(values),
    }


def groups_of(rows: Iterable[ImageScores]) -> list[tuple[str, str]]:
    """Returns sorted (dataset, degradation) of all rows; each data set ends with "all", the
    pool.
    """
    pairs = {(row.dataset, row.degradation) for row in rows}
    groups: list[tuple[str, str]] = []
    for dataset in sorted({dataset for dataset, _ in pairs}):
        names = sorted(name for where, name in pairs if where == dataset)
        groups += [(dataset, name) for name in names if name]
        groups.append((dataset, ALL))
    return groups


def group_rows(rows: Iterable[ImageScores], group: tuple[str, str]) -> list[ImageScores]:
    """Returns the rows of a group."""
    return [row for row in rows if row.dataset == group[0] and group[1] in (ALL, row.degradation)]


def set_score(
    key: str,
    rows: list[ImageScores],
    references: dict[tuple[str, str], ImageScores],
    features: np.ndarray,
    pooled: bool,
) -> dict[str, Any] | None:
    """Returns the FID of rows against the references of the same images.

    The slow one of torchmetrics is computed for pooled images only; None for a part of them.
    """
    if key == "fid_torchmetrics" and not pooled:
        return None
    own, other = [], []
    for row in rows:
        reference = references.get((row.dataset, row.id))
        if row.feature is None or reference is None or reference.feature is None:
            continue
        own.append(row.feature)
        other.append(reference.feature)
    distance = fid.frechet_torchmetrics if key == "fid_torchmetrics" else fid.frechet
    value = distance(features[own], features[other]) if len(own) > 1 else math.nan
    return {
        "mean": value if math.isfinite(value) else None,
        "low": None,
        "high": None,
        "n": len(own),
    }


def gain_of(
    key: str, better: list[ImageScores], worse: dict[str, ImageScores], seed: int, resamples: int
) -> dict[str, Any]:
    """Returns the mean of better - worse over images that have both, with its interval.

    Counted are the images that improved, got worse, or tied.
    """
    differences = [
        row.scores[key] - worse[row.id].scores[key]
        for row in better
        if key in row.scores and row.id in worse and key in worse[row.id].scores
    ]
    sign = 1.0 if METRICS[key].higher else -1.0
    gains = np.array([sign * difference for difference in differences])
    return mean_of(differences, seed, resamples) | {
        "better": int((gains > 0).sum()),
        "worse": int((gains < 0).sum()),
        "tied": int((gains == 0).sum()),
    }


def summarise(
    rows: list[ImageScores],
    features: np.ndarray,
    metrics: dict[str, dict[str, Any]],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Returns groups, failures and intervals of rows in any order.

    The same rows in another order, or from several processes, give the same summary.

    Args:
        rows: of all versions; those of version "reference" hold features only.
        features: (rows, 2048), see ImageScores.feature.
        metrics: see Scorer.describe; those not computed are carried along as such.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    rows = sorted(rows, key=lambda row: (row.dataset, row.degradation, row.id, row.version))
    scored = [row for row in rows if row.version != "reference"]
    names = {row.version for row in scored}
    scores = _Scores(
        rows=scored,
        references={(row.dataset, row.id): row for row in rows if row.version == "reference"},
        features=features,
        versions=sorted(names, key=lambda v: (v != "degraded", v != "restored", v)),
        keys=[key for key, about in metrics.items() if about["status"] == "computed"],
        seed=seed,
        resamples=resamples,
    )
    return {
        "format": FORMAT,
        "metrics": metrics,
        "versions": scores.versions,
        "groups": [scores.group(*group) for group in groups_of(scored)],
        "failed": _failures(rows),
        "tiled_images": _tiled_images(scored, scores.keys),
        "sizes": _sizes(scored),
        "bootstrap": {
            "resamples": resamples,
            "seed": seed,
            "level": LEVEL,
            "method": "percentile, images with replacement",
        },
    }


@dataclass
class _Scores:
    """Sorted rows with all that the entry of a group is computed from."""

    rows: list[ImageScores]
    references: dict[tuple[str, str], ImageScores]
    features: np.ndarray
    versions: list[str]
    keys: list[str]
    seed: int
    resamples: int

    def group(self, dataset: str, degradation: str) -> dict[str, Any]:
        """Returns the entry of a group: its images, the values of each version, and what was
        gained.
        """
        members = group_rows(self.rows, (dataset, degradation))
        by_version = {version: _of_version(members, version) for version in self.versions}
        return {
            "dataset": dataset,
            "degradation": degradation,
            "n": len({row.id for row in members}),
            "versions": {
                version: self._values(own, pooled=degradation == ALL)
                for version, own in by_version.items()
            },
            "gain": self._gains(by_version.get("degraded"), by_version.get("restored")),
        }

    def _values(self, rows: list[ImageScores], pooled: bool) -> dict[str, Any]:
        """Each metric of one version; a metric of sets that the group does not have is left out."""
        values: dict[str, Any] = {}
        for key in self.keys:
            if METRICS[key].needs == "set":
                value = set_score(key, rows, self.references, self.features, pooled)
                if value is not None:
                    values[key] = value
            else:
                scores = [row.scores[key] for row in rows if key in row.scores]
                values[key] = mean_of(scores, self.seed, self.resamples)
        return values

    def _gains(
        self, degraded: list[ImageScores] | None, restored: list[ImageScores] | None
    ) -> dict[str, dict[str, Any]]:
        """Returns what restoration gained, by metric of single images.

        It returns nothing without both versions.
        """
        if degraded is None or restored is None:
            return {}
        worse = {row.id: row for row in degraded}
        return {
            key: gain_of(key, restored, worse, self.seed, self.resamples)
            for key in self.keys
            if METRICS[key].needs != "set"
        }


def _of_version(rows: list[ImageScores], version: str) -> list[ImageScores]:
    return [row for row in rows if row.version == version]


def _failures(rows: list[ImageScores]) -> list[dict[str, str]]:
    """Every score that could not be computed, with its reason."""
    failures = []
    for row in rows:
        about = {"dataset": row.dataset, "id": row.id, "version": row.version}
        for key, reason in row.errors.items():
            failures.append(about | {"metric": key, "reason": reason})
    return failures


def _tiled_images(rows: list[ImageScores], keys: list[str]) -> dict[str, int]:
    """Returns how many images were scored in tiles, by metric; metrics without any are left out."""
    counts = {key: sum(key in row.tiles for row in rows) for key in keys}
    return {key: count for key, count in counts.items() if count}


def _sizes(rows: list[ImageScores]) -> dict[str, int]:
    """Images of each size, "width x height"."""
    sizes = {(row.dataset, row.id): (row.width, row.height) for row in rows}
    counts: dict[str, int] = {}
    for width, height in sorted(sizes.values()):
        name = f"{width} x {height}"
        counts[name] = counts.get(name, 0) + 1
    return counts
