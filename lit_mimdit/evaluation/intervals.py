"""Intervals of means: for other images, other trainings, or both. All are pure functions.

scipy is imported where a t distribution is needed: it takes a second, and a bootstrap needs none.
"""

import math

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000


def bootstrap(values: np.ndarray, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Returns the percentile interval (95%) of the mean of (N,) values over images drawn with
    replacement (Efron, 1979); NaN for N = 1.

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


# m +- t_{n-1, 0.975} s / sqrt(n), s with n - 1  (Student, Biometrika 6, 1908)
def t_interval(
    values: np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean over the first axis (n, ...), and the ends of its interval; NaN ends for n =
    1.
    """
    mean, error = values.mean(0), standard_error(values)
    from scipy import stats

    reach = error * (stats.t.ppf((1 + level) / 2, len(values) - 1) if len(values) > 1 else np.nan)
    return mean, mean - reach, mean + reach


# s / sqrt(n)
def standard_error(values: np.ndarray) -> np.ndarray:
    """Returns the standard error of the mean over the first axis (n, ...); NaN for n = 1."""
    return (
        values.std(0, ddof=1) / np.sqrt(len(values))
        if len(values) > 1
        else np.full(values.shape[1:], np.nan)
    )


# d_si = mu + a_s + b_i + e_si, seeds s = 1..S and images i = 1..I crossed, all three random. With
# the mean squares of the two-way table
#   var(d..) = (MS_S + MS_I - MS_E) / (S I), or MS_S / (S I) if MS_I < MS_E
# as for readers and cases (Dorfman, Berbaum, Metz, Investigative Radiology 27, 1992); degrees of
# freedom of such a sum c_k MS_k (sum c_k MS_k)^2 / sum((c_k MS_k)^2 / f_k)
# (Satterthwaite, Biometrics Bulletin 2, 1946)
# and never fewer than the least f_k: where the subtracted MS_E leaves nearly nothing, the formula
# goes to 0, and the interval to infinity.
def crossed_interval(d_SI: np.ndarray, level: float = LEVEL) -> tuple[float, float, float]:
    """Returns the mean of paired differences (S, I) and the ends of its interval.

    The images are the same for every seed.

    The ends are NaN for one seed or one image, since nothing then says how other trainings or other
    images would differ. With 3 seeds and 50 images the 95% interval held the truth in 92 to 97% of
    simulated tables. It did least often where seeds and images vary alike.
    """
    from scipy import stats

    seeds, images = d_SI.shape
    mean = float(d_SI.mean())
    if min(seeds, images) < 2:
        return mean, math.nan, math.nan
    rows, columns = d_SI.mean(1), d_SI.mean(0)
    ms_seed = images * np.square(rows - mean).sum() / (seeds - 1)
    ms_image = seeds * np.square(columns - mean).sum() / (images - 1)
    rest = d_SI - rows[:, None] - columns[None] + mean
    ms_rest = np.square(rest).sum() / ((seeds - 1) * (images - 1))
    parts = [(ms_seed, seeds - 1)]
    if ms_image > ms_rest:
        parts += [(ms_image, images - 1), (-ms_rest, (seeds - 1) * (images - 1))]
    spread = sum(square for square, _ in parts)
    if spread == 0.0:
        return mean, mean, mean
    freedom = max(
        spread**2 / sum(square**2 / free for square, free in parts), min(free for _, free in parts)
    )
    reach = float(stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(spread / (seeds * images)))
    return mean, mean - reach, mean + reach
