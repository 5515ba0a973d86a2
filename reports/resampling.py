"""Bootstrap of correlations that draws whole groups of related rows, vectorised over the resamples.

A resample is a row of ``counts`` [b, g]: how often each of the g units was drawn. ``unit`` [n] says which unit a row
belongs to, so row i stands in a resample ``counts[:, unit[i]]`` times. Nothing is copied: multiplicities are weights.
A coefficient that a resample leaves undefined (x or y is constant in it) is NaN.
"""

import numpy as np
from scipy.stats import weightedtau

Array = np.ndarray


def draw(units: int, resamples: int, seed: int) -> Array:
    """How often each unit is drawn, with replacement, into resamples of as many units: integers [resamples, units]."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)


def pearson(x: Array, y: Array, counts: Array, unit: Array) -> Array:
    """Pearson's r of x [n] and y [n] in every resample: float64 [b]."""
    weights = counts[:, unit].astype(float)
    return np.where(_varies(x, weights) & _varies(y, weights), _weighted_pearson(x, y, weights), np.nan)


def spearman(x: Array, y: Array, counts: Array, unit: Array) -> Array:
    """Spearman's rho in every resample, ranked anew in each (ties get their mean rank): float64 [b]."""
    weights = counts[:, unit].astype(float)
    rho = _weighted_pearson(_midranks(x, weights), _midranks(y, weights), weights)
    return np.where(_varies(x, weights) & _varies(y, weights), rho, np.nan)


def kendall(x: Array, y: Array, counts: Array, unit: Array) -> Array:
    """Kendall's tau-b in every resample: float64 [b].

    Pairs are summed over units first, so a resample costs g squared operations instead of n squared.
    """
    concordance = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    member = (unit == np.arange(counts.shape[1])[:, None]).astype(float)
    between_units = member @ concordance @ member.T
    difference = ((counts @ between_units) * counts).sum(axis=1)
    untied = np.sqrt(_untied_pairs(x, counts, unit)) * np.sqrt(_untied_pairs(y, counts, unit))
    return np.divide(difference, untied, out=np.full(len(counts), np.nan), where=untied > 0)


def weighted_kendall(x: Array, y: Array, counts: Array, unit: Array) -> Array:
    """Weighted Kendall (Vigna 2015; hyperbolic, high values weigh most) in every resample, by a loop: float64 [b]."""
    weights = counts[:, unit]
    defined = _varies(x, weights) & _varies(y, weights)
    rows = np.arange(len(x))
    tau = np.full(len(counts), np.nan)
    for i in np.flatnonzero(defined):
        drawn = np.repeat(rows, weights[i])
        tau[i] = weightedtau(x[drawn], y[drawn]).statistic
    return tau


def _varies(x: Array, weights: Array) -> Array:
    present = weights > 0
    return np.where(present, x, -np.inf).max(axis=1) > np.where(present, x, np.inf).min(axis=1)


def _weighted_pearson(x: Array, y: Array, weights: Array) -> Array:
    """Pearson's r of x and y ([n] or [b, n]) under each row of weights [b, n]; rounding cannot carry it past 1."""
    total = weights.sum(axis=1, keepdims=True)
    dx = x - (weights * x).sum(axis=1, keepdims=True) / total
    dy = y - (weights * y).sum(axis=1, keepdims=True) / total
    spread = np.sqrt((weights * dx**2).sum(axis=1)) * np.sqrt((weights * dy**2).sum(axis=1))
    products = (weights * dx * dy).sum(axis=1)
    return np.clip(np.divide(products, spread, out=np.full(len(weights), np.nan), where=spread > 0), -1, 1)


def _midranks(x: Array, weights: Array) -> Array:
    """Mean ranks [b, n] less one half, which no correlation sees."""
    tied, value = _weight_by_value(x, weights)
    return (tied.cumsum(axis=1) - tied / 2)[:, value]


def _untied_pairs(x: Array, counts: Array, unit: Array) -> Array:
    """Twice the number of pairs whose x differ: [b]."""
    tied, _ = _weight_by_value(x, counts[:, unit].astype(float))
    return tied.sum(axis=1) ** 2 - (tied**2).sum(axis=1)


def _weight_by_value(x: Array, weights: Array) -> tuple[Array, Array]:
    """Weights summed over rows of equal x, by increasing x [b, distinct values]; and each row's place there [n]."""
    order = np.argsort(x, kind="stable")
    first = np.r_[True, np.diff(x[order]) > 0]
    value = np.empty(len(x), dtype=int)
    value[order] = np.cumsum(first) - 1
    return np.add.reduceat(weights[:, order], np.flatnonzero(first), axis=1), value
