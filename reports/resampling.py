"""Bootstrap of correlations that draws whole families of related rows, as products of matrices over family counts.

A resample is a row of ``counts`` [b, g]: how often each of the g families was drawn. ``unit`` [n] says which family a
row belongs to, so row i stands in a resample ``counts[:, unit[i]]`` times. Nothing is copied: multiplicities are
weights, and what a family contributes is summed before the resamples are. A coefficient that a resample leaves
undefined (x or y is constant in it) is NaN.
"""

from collections import OrderedDict
from functools import cached_property

import numpy as np

from .intervals import standard_ranks

Array = np.ndarray
KEPT_BYTES = 400_000_000  # of ranks in resamples, which the other columns of a table need again
FEW_FAMILIES = (
    4  # rows a family, from which on a product over families is faster than sums along the order
)


def draw(units: int, resamples: int, seed: int) -> Array:
    """How often each unit is drawn, with replacement, into resamples of as many units: integers [resamples, units]."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)


class Resamples:
    """The same resamples for many columns: what each column contributes is computed once.

    Parameters
    ----------
    unit
        Numbers from 0 of the family that each row belongs to, [n].
    counts
        How often each family was drawn, integers [b, g].
    """

    def __init__(self, unit: Array, counts: Array) -> None:
        self.unit, self.counts = unit, counts
        self._sizes = np.bincount(unit, minlength=counts.shape[1])
        self._ranks: OrderedDict[bytes, tuple[Array, Array]] = OrderedDict()
        self._spearman: dict[tuple[bytes, bytes], Array] = {}

    @classmethod
    def drawn(cls, unit: Array, resamples: int, seed: int) -> "Resamples":
        """So many resamples, of a seed, of the families that ``unit`` [n] numbers."""
        return cls(unit, draw(int(unit.max(initial=-1)) + 1, resamples, seed))

    @cached_property
    def _single(self) -> Array:
        """The counts in single precision, which holds them, and all ranks, without error."""
        return self.counts.astype(np.float32)

    @cached_property
    def _weights(self) -> Array:
        return self._single[:, self.unit]

    @cached_property
    def _roots(self) -> Array:
        return np.sqrt(self._weights)

    def pearson(self, x: Array, y: Array) -> Array:
        """Pearson's r of x [n] and y [n] in every resample: float64 [b]."""
        x = (x - x.mean()) / (x.std() or 1)
        y = (y - y.mean()) / (y.std() or 1)
        columns = np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
        rows, *sums = (self.counts.astype(float) @ self._of_families(columns)).T
        mean_x, mean_y, xx, yy, xy = (of_rows / rows for of_rows in sums)
        spread_x = np.sqrt(np.maximum(xx - mean_x**2, 0))
        spread_y = np.sqrt(np.maximum(yy - mean_y**2, 0))
        spread = spread_x * spread_y
        _, lengths_x = self._ranked(standard_ranks(x))
        _, lengths_y = self._ranked(standard_ranks(y))
        varies = (lengths_x > 0) & (lengths_y > 0)
        return _ratio(xy - mean_x * mean_y, np.where(varies, spread, 0))

    def spearman(self, x: Array, y: Array) -> Array:
        """Spearman's rho in every resample, ranked anew in each (ties get their mean rank): float64 [b].

        Single precision is exact to about 1e-6, far below the resampling's own noise.
        """
        # Ranks hold all that matters, so a rescaled column is found again.
        x, y = standard_ranks(x), standard_ranks(y)
        key = (x.tobytes(), y.tobytes())
        if key not in self._spearman:
            (ranks_x, length_x), (ranks_y, length_y) = self._ranked(x), self._ranked(y)
            products = np.einsum("bn,bn->b", ranks_x, ranks_y).astype(float)
            self._spearman[key] = _ratio(products, length_x * length_y)
        return self._spearman[key]

    def _ranked(self, x: Array) -> tuple[Array, Array]:
        """The centred ranks of x in every resample, times the root of the weights, float32 [b, n]; their length [b]."""
        key = x.tobytes()
        if key not in self._ranks:
            ranks = (
                self._ranks_by_family(x)
                if FEW_FAMILIES * len(self._sizes) < len(x)
                else self._ranks_by_order(x)
            )
            ranks *= self._roots
            self._ranks[key] = ranks, np.sqrt(np.einsum("bn,bn->b", ranks, ranks)).astype(float)
            while len(self._ranks) > 2 and len(self._ranks) * ranks.nbytes > KEPT_BYTES:
                self._ranks.popitem(last=False)
        self._ranks.move_to_end(key)
        return self._ranks[key]

    def _ranks_by_family(self, x: Array) -> Array:
        """A row's rank is a sum over families: how many rows of each are below it, with half of those equal to it."""
        value, equal = self._equal(x)
        below = equal.cumsum(axis=0) - equal / 2 - self._sizes / 2
        return self._single @ below.astype(np.float32)[value].T

    def _equal(self, x: Array) -> tuple[Array, Array]:
        """The number of each row's value [n], and how many rows of every family have it, float32 [values, g]."""
        value = np.unique(x, return_inverse=True)[1]
        places = value * len(self._sizes) + self.unit
        shape = int(value.max()) + 1, len(self._sizes)
        return value, np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape).astype(
            np.float32
        )

    def _ranks_by_order(self, x: Array) -> Array:
        """The same as a running sum of the weights along the order of x."""
        value = np.unique(x, return_inverse=True)[1]
        order = np.argsort(value, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(value[order]) > 0])
        equal = np.add.reduceat(self._weights[:, order], starts, axis=1)
        below = equal.cumsum(axis=1) - equal / 2 - self._weights.sum(axis=1, keepdims=True) / 2
        return below[:, value]

    def kendall(self, x: Array, y: Array) -> Array:
        """Kendall's tau-b in every resample: float64 [b]."""
        pairs = (self._concordance(x, y), self._untied(x), self._untied(y))
        counts = self.counts.astype(float)
        of_resamples = [
            ((counts @ self._of_families(rows.T)) * counts).sum(axis=1) for rows in pairs
        ]
        return _ratio(of_resamples[0], np.sqrt(of_resamples[1]) * np.sqrt(of_resamples[2]))

    def weighted_kendall(self, x: Array, y: Array) -> Array:
        r"""Weighted Kendall (hyperbolic, high values weigh most) in every resample: float64 [b].

        With additive weights :math:`f(\rho) = 1 / (1 + \rho)` of the ranks :math:`\rho`, a sum over pairs is one over
        rows, :math:`\sum_i f(\rho_i) K_i`, where :math:`K_i` adds up the signs of the pairs that row i is in. The
        copies of a row in a resample have consecutive ranks and the same :math:`K_i`.

        References
        ----------
        Vigna (2015), A weighted correlation index for rankings with ties, equation 4.
        """
        pairs = (self._concordance(x, y), self._untied(x), self._untied(y))
        of_rows = [self.counts.astype(float) @ of_families for of_families in pairs]
        halves = []
        for first, then in ((x, y), (y, x)):
            weight = self._hyperbolic(np.lexsort((then, first))[::-1])
            products, length_x, length_y = (np.einsum("bn,bn->b", weight, sums) for sums in of_rows)
            halves.append(_ratio(products, np.sqrt(length_x) * np.sqrt(length_y)))
        return np.asarray((halves[0] + halves[1]) / 2)

    def _concordance(self, x: Array, y: Array) -> Array:
        """For each row, its concordant pairs less the discordant ones with the rows of every family: [g, n]."""
        signs = _signs(x) * _signs(y)
        return self._of_families(signs).astype(float)

    def _untied(self, x: Array) -> Array:
        """For each row, how many rows of every family have another x: [g, n]."""
        value, equal = self._equal(x)
        return np.asarray((self._sizes - equal)[value].T, dtype=float)

    def _hyperbolic(self, order: Array) -> Array:
        """The weights of all copies of each row, float64 [b, n]; their ranks follow ``order`` [n], highest first."""
        copies = self.counts[:, self.unit[order]]
        behind = copies.cumsum(axis=1)
        harmonic = np.r_[0, np.cumsum(1 / np.arange(1, behind.max() + 1))]
        weight = np.empty(copies.shape)
        weight[:, order] = harmonic[behind] - harmonic[behind - copies]
        return weight

    def _of_families(self, columns: Array) -> Array:
        """Sums over the rows of each family: [n, k] to [g, k]."""
        order = np.argsort(self.unit, kind="stable")
        kind = np.int32 if columns.dtype.kind == "i" else float
        return np.asarray(
            np.add.reduceat(columns[order], self._sizes.cumsum() - self._sizes, axis=0, dtype=kind)
        )


def _signs(x: Array) -> Array:
    """The signs of all differences, int8 [n, n]."""
    return (x[:, None] > x).astype(np.int8) - (x[:, None] < x)


def _ratio(products: Array, lengths: Array) -> Array:
    """A correlation, NaN where a length is 0; rounding must not carry it past 1."""
    ratios = np.divide(products, lengths, out=np.full(len(products), np.nan), where=lengths > 0)
    return np.clip(ratios, -1, 1)
