"""Table 6 of the paper (arXiv 2603.02710): mean Inter-MoE weights by degradation.

One's own weights stand beside it.

A preference is a cell on one side of the equal share 1 / G, or of the group's own mean over the
five degradations. The second is its contrast: a group that is heavy everywhere prefers nothing. A
preference appears in one's own numbers if their interval lies wholly on the published side.
"""

import csv
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from lit_mimdit.evaluation.intervals import LEVEL, t_interval
from lit_mimdit.evaluation.published import FOUNDIR

# column of the paper's table -> FoundIR type: the isolated ones, as for table 1. 11Raindrop is
# drops on the lens and no rain
TYPES = {name.lower(): folder for name, (folder, _) in FOUNDIR.items()}
PAPER_GROUPS = ["spatial", "channel", "swin", "se"]
Verdict = Literal["appears", "opposite", "undecided"]


def read_table6() -> np.ndarray:
    """Returns the published weights (degradations, groups), as TYPES and PAPER_GROUPS go."""
    text = (files("lit_mimdit.evaluation") / "paper" / "table6_routing_weights.csv").read_text(
        encoding="utf-8"
    )
    rows = {row["attention type"].lower(): row for row in csv.DictReader(text.splitlines())}
    return np.array([[float(rows[group][name]) for group in PAPER_GROUPS] for name in TYPES])


def published_for(names: list[str], groups: list[str]) -> np.ndarray | None:
    """Returns the published rows of these degradations, (len(names), groups); None if the paper has
    not all of them, or other groups.
    """
    known = list(TYPES)
    if not names or groups != PAPER_GROUPS or not set(names) <= set(known):
        return None
    return read_table6()[[known.index(name) for name in names]]


class Interval(NamedTuple):
    """Means with the ends of their intervals, arrays of one shape; NaN where there is none."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def over_checkpoints(means: np.ndarray) -> tuple[Interval, Interval]:
    """Returns intervals over several trainings, from means (checkpoints, degradations, groups).

    They are of the weights, and of their contrasts to the mean degradation.
    """
    return Interval(*t_interval(means)), Interval(*t_interval(means - means.mean(1, keepdims=True)))


# c_d = m_d - mean_d' m_d';  var c_d = (1 - 2 / D) v_d + sum_d' v_d' / D^2 for independent m_d
def over_images(values: list[np.ndarray]) -> tuple[Interval, Interval]:
    """Returns what `over_checkpoints` does, for one training: its intervals are over images.

    `values` are (n_d, groups) of each degradation.

    They say how well this training's weights are known, and nothing of another training.
    """
    known = [t_interval(some) for some in values]
    mean = np.stack([part[0] for part in known])
    variance = np.stack(
        [
            some.var(0, ddof=1) / len(some) if len(some) > 1 else np.full(some.shape[1], np.nan)
            for some in values
        ]
    )
    spread = np.sqrt((1 - 2 / len(values)) * variance + variance.sum(0) / len(values) ** 2)
    reach, contrast = stats.norm.ppf((1 + LEVEL) / 2) * spread, mean - mean.mean(0)
    weights = Interval(
        mean, np.stack([part[1] for part in known]), np.stack([part[2] for part in known])
    )
    return weights, Interval(contrast, contrast - reach, contrast + reach)


def verdicts(own: Interval, published: np.ndarray, neutral: float) -> np.ndarray:
    """Returns whether what the paper prefers and avoids appears.

    Verdicts (degradations, groups) are text; undecided if the interval covers neutral.
    """
    above, below = own.low > neutral, own.high < neutral
    agrees = np.where(published > neutral, above, below)
    return np.where(agrees, "appears", np.where(above | below, "opposite", "undecided"))


def rows_of(
    weights: Interval,
    contrasts: Interval,
    images: list[int],
    names: list[str],
    groups: list[str],
    published: np.ndarray | None,
) -> list[dict[str, Any]]:
    """One row a degradation and group, for CSV; published values and verdicts where there are any.

    Args:
        weights: of the degradations and groups, in the order of their names.
        contrasts: of the same.
        images: how many, of each degradation.
        names: degradations.
        groups: their names.
        published: (degradations, groups), or None.
    """
    lines = []
    if published is not None:
        apart = published - published.mean(0)
        share, own = verdicts(weights, published, 1 / len(groups)), verdicts(contrasts, apart, 0.0)
    for d, name in enumerate(names):
        for g, group in enumerate(groups):
            row = {"degradation": name, "group": group, "images": images[d]}
            row |= {
                "mean": weights.mean[d, g],
                "low": weights.low[d, g],
                "high": weights.high[d, g],
            }
            row |= {
                "contrast": contrasts.mean[d, g],
                "contrast_low": contrasts.low[d, g],
                "contrast_high": contrasts.high[d, g],
            }
            if published is not None:
                row |= {"published": published[d, g], "published_contrast": apart[d, g]}
                row |= {"against_equal_share": str(share[d, g]), "against_own_mean": str(own[d, g])}
            lines.append(row)
    return lines


def agreement(means: np.ndarray, published: np.ndarray) -> dict[str, float]:
    """Returns how alike two tables (degradations, groups) are.

    Given are rank correlations of weights and contrasts, and shared heaviest groups.
    """
    contrast = [table - table.mean(0) for table in (means, published)]
    return {
        "spearman_weights": float(stats.spearmanr(means.ravel(), published.ravel()).statistic),
        "spearman_contrasts": float(
            stats.spearmanr(contrast[0].ravel(), contrast[1].ravel()).statistic
        ),
        "same_heaviest_group": int((means.argmax(1) == published.argmax(1)).sum()),
    }
