"""Paired tests of models on the same images: exact ones, and the rule by which a search drops models."""

import numpy as np
from scipy.stats import binom, norm

ERROR_RATE = 0.05
"""The greatest chance that a search drops a model that is as good as the best on all images."""
FAR = 8.0  # standard deviations, beyond which a bound serves as the p value
WIDTH = 16.0  # standard deviations, beyond which a sum of random signs is too improbable to count
PERIOD = 2**14
"""Steps in twice that width; where images count unequally, their weights are rounded to whole steps."""
PAIRS_AT_ONCE = 64  # pairs of models whose distributions are computed at a time


def upper_p(better: np.ndarray, worse: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the one-sided p value, [k], of the first model's lead in k pairs of models.

    The hypothesis of this exact test is that on each image on which only one of the two is right, either is so with the
    same chance. The p value is the chance of a lead as large or larger. With one weight this is McNemar's exact test,
    one-sided; with several, it is the permutation test that swaps the two models image by image, within each class.

    Parameters
    ----------
    better, worse
        The numbers of images of each weight that only the first, or only the second model gets right, int64 [k, g].
    weights
        The distinct weights of images, [g], positive.
    """
    disagree = better + worse
    if len(weights) == 1:
        return np.asarray(binom.sf(better[:, 0] - 1, disagree[:, 0], 0.5))
    lead, variance = (better - worse) @ weights, disagree @ weights**2
    p = np.exp(-(lead**2) / (2 * np.maximum(variance, weights.min() ** 2)))  # Hoeffding's bound
    is_open = lead**2 < FAR**2 * variance
    p[~is_open & (lead <= 0)] = 1
    # Pairs of similar variance share a scale.
    scales = np.where(is_open, np.frexp(np.sqrt(variance))[1], np.iinfo(np.int32).min)
    for scale in np.unique(scales[is_open]):
        pairs = np.flatnonzero(scales == scale)
        steps = np.rint(weights * (PERIOD / 2 / WIDTH) / 2.0**scale).astype(np.int64)
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            some = pairs[start : start + PAIRS_AT_ONCE]
            p[some] = _swapped(better[some], disagree[some], steps)
    return p


def _swapped(better: np.ndarray, disagree: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the chance, [k], that a sum of +-steps is as large as observed, from its characteristic function."""
    observed = (2 * better - disagree) @ steps
    angles = steps[:, None] * np.arange(PERIOD // 2 + 1) % PERIOD * (2 * np.pi / PERIOD)
    cosines = np.cos(angles)
    with np.errstate(divide="ignore"):
        logarithms = np.maximum(np.log(np.abs(cosines)), -750)  # whose exponential is 0
    signs = 1 - 2 * ((disagree % 2) @ (cosines < 0) % 2)
    chances = np.fft.irfft(signs * np.exp(disagree @ logarithms), PERIOD, axis=1)
    # The negative sums are at the end of the period: put them first, and add from the largest sum down.
    upwards = np.roll(chances, PERIOD // 2, axis=1)[:, ::-1].cumsum(axis=1)
    p = upwards[np.arange(len(better)), PERIOD // 2 - 1 - observed]
    return np.clip(p, np.exp2(-disagree.sum(axis=1).astype(float)), 1)


def by_weight(
    one: np.ndarray, others: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the arguments of ``upper_p`` for pairs of models.

    Parameters
    ----------
    one, others
        Hits on the same images, bool [m] or [k, m], and bool [k, m].
    weights
        How much each image counts, [m].
    """
    distinct, group = np.unique(np.round(weights / weights.max(), 9), return_inverse=True)
    is_of_group = (group[:, None] == np.arange(len(distinct))).astype(np.float32)
    counts = [
        (differ.astype(np.float32) @ is_of_group) for differ in (one & ~others, others & ~one)
    ]
    better, worse = (np.rint(count).astype(np.int64) for count in counts)
    return better, worse, distinct


def two_sided_p(one: np.ndarray, others: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the p value, [k], of the differences between one model's hits, bool [m], and others', bool [k, m]."""
    better, worse, distinct = by_weight(one, others, weights)
    leads = better @ distinct >= worse @ distinct
    upper = upper_p(
        np.where(leads[:, None], better, worse), np.where(leads[:, None], worse, better), distinct
    )
    return np.minimum(2 * upper, 1)


def may_be_best(
    hits: np.ndarray, weights: np.ndarray, *, level: float, compared: int
) -> np.ndarray:
    """Return which models may be as good as the best, bool [k]: those that no other is shown to surpass.

    The chance that any model as good as the best is not among them is at most ``level``: each of them is compared with
    at most ``compared - 1`` others, and thresholds are divided by the number of models that are still left (Holm's
    step-down, valid because the best models are among those left until one of them is dropped).

    Parameters
    ----------
    hits
        Whether each model is right on each image, bool [k, m].
    weights
        How much each image counts, [m].
    level
        The part of the error rate spent on this comparison.
    compared
        The number of models that the search began with.
    """
    if len(hits) < 2:
        return np.ones(len(hits), dtype=bool)
    right = hits.astype(np.float32)
    squares = (weights**2).astype(np.float32)
    accuracy, spread = hits @ weights, right @ squares
    variance = spread[:, None] + spread[None, :] - 2 * (right * squares) @ right.T
    lead = accuracy[:, None] - accuracy[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(lead > 0, lead / np.sqrt(np.maximum(variance, squares.min())), 0)
    rival = z.argmax(axis=0)
    p = np.ones(len(hits))
    is_behind = z.max(axis=0) > 2  # others are far from any threshold
    if is_behind.any():
        pairs = by_weight(hits[rival[is_behind]], hits[is_behind], weights)
        p[is_behind] = upper_p(*pairs)
    left = np.ones(len(hits), dtype=bool)
    while True:
        still = p > level / ((max(compared, len(hits)) - 1) * left.sum())
        if (still == left).all():
            return left
        left = still


def gain_interval(
    one: np.ndarray, other: np.ndarray, weights: np.ndarray, level: float = 0.05
) -> tuple[float, float]:
    """Return the limits of the interval of coverage 1 - ``level`` of one model's lead over another, in points.

    An adjusted Wald interval, which counts one more image in either direction; where images count unequally, their
    number is the effective one.

    Parameters
    ----------
    one, other
        Hits on the same images, bool [m].
    weights
        How much each image counts, [m]; they add up to 1.

    References
    ----------
    Bonett and Price (2012), Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data.
    """
    n = 1 / float(np.square(weights).sum())
    better, worse = (
        (n * float(weights @ differ) + 1) / (n + 2) for differ in (one & ~other, other & ~one)
    )
    half = norm.isf(level / 2) * np.sqrt((better + worse - (better - worse) ** 2) / (n + 2))
    return 100 * float(better - worse - half), 100 * float(better - worse + half)
