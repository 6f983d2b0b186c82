"""Intervals of paired differences between two variants, for other trainings and other images: pure functions."""

import math

import numpy as np
from scipy import stats

from lit_mimdit.routing.statistics import LEVEL


# d_si = mu + a_s + b_i + e_si, seeds s = 1..S and images i = 1..I crossed, all three random. With the mean squares of the two-way table
#   var(d..) = (MS_S + max(MS_I - MS_E, 0)) / (S I)
#   degrees of freedom = (MS_S + max(MS_I - MS_E, 0))^2 / (MS_S^2 / (S - 1))
# as for readers and cases (Dorfman, Berbaum, Metz, 1992; degrees of freedom: Hillis, Statistics in Medicine 26, 2007, eq. 18)
def crossed_interval(d_SI: np.ndarray, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean of paired differences (S, I), the same images for every seed, and the ends of its interval.

    NaN ends for one seed or one image: nothing then says how other trainings or other images would differ.
    """
    seeds, images = d_SI.shape
    mean = float(d_SI.mean())
    if min(seeds, images) < 2:
        return mean, math.nan, math.nan
    rows, columns = d_SI.mean(1), d_SI.mean(0)
    ms_seed = images * np.square(rows - mean).sum() / (seeds - 1)
    ms_image = seeds * np.square(columns - mean).sum() / (images - 1)
    rest = d_SI - rows[:, None] - columns[None] + mean
    ms_rest = np.square(rest).sum() / ((seeds - 1) * (images - 1))
    spread = ms_seed + max(ms_image - ms_rest, 0.0)
    if spread == 0.0:
        return mean, mean, mean
    freedom = spread**2 / (ms_seed**2 / (seeds - 1)) if ms_seed > 0 else math.inf
    reach = float(stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(spread / (seeds * images)))
    return mean, mean - reach, mean + reach
