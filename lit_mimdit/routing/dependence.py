"""Mutual information between labels and choices, and what chance gives: pure functions."""

import numpy as np
from scipy import stats


# I(S; C) = sum_{s,c} p(s, c) log2( p(s, c) / (p(s) p(c)) )  (Shannon, 1948)
def mutual_information(counts: np.ndarray) -> np.ndarray:
    """Returns bits between the two last axes of tables of counts (..., S, C), which may be
    fractions; 0 for an empty table.
    """
    whole = counts.sum((-2, -1), keepdims=True)
    joint = counts / np.where(whole > 0, whole, 1.0)
    apart = joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)
    ratio = np.where(joint > 0, joint / np.where(apart > 0, apart, 1.0), 1.0)
    return np.maximum((joint * np.log2(ratio)).sum((-2, -1)), 0.0)


def tables(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns contingency tables (..., S, E) of labels (n,) in 0..S-1 and choices (n, ..., E),
    which count as often as they were chosen.
    """
    one_hot = np.eye(labels.max() + 1)[labels]
    return np.moveaxis(np.tensordot(one_hot, chosen, axes=(0, 0)), 0, -2)


# p = (1 + #{I_perm >= I}) / (1 + R)  (Phipson and Smyth, arXiv 1603.05766, eq. 1)
def permutation_test(
    labels: np.ndarray, chosen: np.ndarray, permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tests whether the choice depends on the label.

    Labels are dealt anew among the images, whose tiles stay together.

    Args:
        labels: (n,) int in 0..S-1.
        chosen: (n, ..., E), see routing/records.py.
        permutations: R.
        seed: of the permutations.

    Returns:
        mutual information in bits, its mean over the permutations (what chance alone gives: it is
        not 0 for few images), and p, all (...).
    """
    draw = np.random.default_rng(seed)
    chosen = chosen.astype(np.float64)
    bits = mutual_information(tables(labels, chosen))
    chance, as_large = np.zeros_like(bits), np.zeros_like(bits)
    for _ in range(permutations):
        other = mutual_information(tables(draw.permutation(labels), chosen))
        chance += other
        as_large += other >= bits - 1e-12
    return bits, chance / max(permutations, 1), (1 + as_large) / (1 + permutations)


def false_discovery(p: np.ndarray) -> np.ndarray:
    """q values of many tests from their p values (any shape).

    Calling all with q < 0.05 findings is wrong in 5% of them (Benjamini and Hochberg, 1995).
    """
    return stats.false_discovery_control(p.ravel()).reshape(p.shape) if p.size else p
