"""Bootstrap of correlations that draws whole groups of related rows, vectorised over the resamples.

A resample is a row of ``counts`` [b, g]: how often each of the g units was drawn. ``unit`` [n] says which unit a row
belongs to, so row i stands in a resample ``counts[:, unit[i]]`` times. Nothing is copied: multiplicities are weights.
A coefficient that a resample leaves undefined (x or y is constant in it) is NaN.
"""

import numpy as np
from scipy.stats import rankdata, weightedtau

Array = np.ndarray
KEPT = 24  # columns: as many megabytes each as there are millions of rows times resamples, times 4


def draw(units: int, resamples: int, seed: int) -> Array:
    """How often each unit is drawn, with replacement, into resamples of as many units: integers [resamples, units]."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)


class Resamples:
    """The same resamples for many columns: what each column contributes is computed once.

    Parameters
    ----------
    unit
        Numbers from 0 of the unit that each row belongs to, [n].
    resamples, seed
        How many, and of what seed.
    """

    def __init__(self, unit: Array, resamples: int, seed: int) -> None:
        self.unit = unit
        self.counts = draw(int(unit.max(initial=-1)) + 1, resamples, seed)
        self._weights = self.counts[:, unit].astype(np.float32)
        self._kept: dict[tuple[bool, bytes], Array] = {}
        self._spearman: dict[tuple[bytes, bytes], Array] = {}

    def pearson(self, x: Array, y: Array) -> Array:
        """Pearson's r of x [n] and y [n] in every resample: float64 [b]."""
        return self._products(self._standardised(x, ranked=False), self._standardised(y, ranked=False))

    def spearman(self, x: Array, y: Array) -> Array:
        """Spearman's rho in every resample, ranked anew in each (ties get their mean rank): float64 [b]."""
        # Ranks hold all that matters, so a rescaled column is found again.
        x, y = rankdata(x), rankdata(y)
        key = (x.tobytes(), y.tobytes())
        if key not in self._spearman:
            found = self._products(self._standardised(x, ranked=True), self._standardised(y, ranked=True))
            self._spearman[key] = found
        return self._spearman[key]

    def _products(self, x: Array, y: Array) -> Array:
        return np.clip(np.einsum("bn,bn->b", x, y).astype(float), -1, 1)  # rounding must not carry it past 1

    def _standardised(self, x: Array, ranked: bool) -> Array:
        """x, or its ranks, centred and scaled to length 1 under each resample's weights: float32 [b, n].

        NaN where it is constant. Single precision is exact to about 1e-6, far below the resampling's own noise.
        """
        key = (ranked, x.tobytes())
        if key not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = self._standardise(x, ranked)
        return self._kept[key]

    def _standardise(self, x: Array, ranked: bool) -> Array:
        weights = self._weights
        column = _midranks(x, weights).astype(np.float32) if ranked else ((x - x.mean()) / (x.std() or 1)).astype("f4")
        centred = column - (weights * column).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
        centred *= np.sqrt(weights)
        length = np.sqrt(np.einsum("bn,bn->b", centred, centred))
        length[~_varies(x, self.counts, self.unit)] = np.nan
        return np.asarray(centred / length[:, None])


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
    defined = _varies(x, counts, unit) & _varies(y, counts, unit)
    rows = np.arange(len(x))
    tau = np.full(len(counts), np.nan)
    for i in np.flatnonzero(defined):
        drawn = np.repeat(rows, weights[i])
        tau[i] = weightedtau(x[drawn], y[drawn]).statistic
    return tau


def _varies(x: Array, counts: Array, unit: Array) -> Array:
    """Whether x takes more than one value in each resample: [b]. Units know their least and greatest values."""
    low, high = np.full(counts.shape[1], np.inf), np.full(counts.shape[1], -np.inf)
    np.minimum.at(low, unit, x)
    np.maximum.at(high, unit, x)
    present = counts > 0
    return np.where(present, high, -np.inf).max(axis=1) > np.where(present, low, np.inf).min(axis=1)


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
