"""Bootstrap of correlations that draws whole families of related rows, as products of matrices over family counts.

A resample is a row of ``counts`` [b, g]: how often each of the g families was drawn. ``unit`` [n] is the family of each
row, so row i occurs ``counts[:, unit[i]]`` times in the resamples. Nothing is copied: multiplicities are weights, and
sums over families are taken before sums over resamples. A coefficient that is undefined in a resample (x or y is
constant in it) is NaN.
"""

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import stats

Array = np.ndarray
LEVEL = 0.95
# This near to 1, Fisher's transformation is infinite up to rounding.
NEARLY_ONE = 1 - 1e-12


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the warnings of degenerate fits and resamples, whose results are checked instead."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class SmallSample:
    """The small-sample correction of a bootstrap of families: a multiplier of its error, and its degrees of freedom."""

    scale: float
    degrees: float

    def half_width(self, error: float) -> float:
        """Return half the width of the 95% interval of an estimate with this error from the resamples."""
        return float(stats.t.ppf(0.5 + LEVEL / 2, self.degrees) * self.scale * error)

    def p_value(self, value: float, error: float) -> float | None:
        """Return the two-sided p value of 0; None without an error."""
        if error <= 0:
            return None
        return float(2 * stats.t.sf(abs(value) / (self.scale * error), self.degrees))


def small_sample(unit: Array, influence: Array | None = None) -> SmallSample:
    r"""Return the small-sample correction of a bootstrap of unequal families.

    To first order an estimate is a mean of influences, in which families share a part r of the variance: the sum of a
    family's n_g has a variance :math:`a_g \propto n_g (1 + (n_g - 1) r)`. Resampling families estimates the estimate's
    variance by :math:`\sum_g (S_g - w_g \sum_h S_h)^2`, with the sums S and the families' shares w of the rows: a
    quadratic form, whose expectation falls short of :math:`\sum_g a_g`; its degrees of freedom are Satterthwaite's
    approximation. For G families of one size the scale is :math:`\sqrt{G / (G - 1)}` and the degrees are G - 1.

    Parameters
    ----------
    unit
        Each row's family, numbers from 0, [n].
    influence
        Each row's part in the estimate, up to a factor and a constant, [n]. Without it the rows of a family count as
        copies of each other (r = 1): the worst case.

    References
    ----------
    Satterthwaite (1946), An approximate distribution of estimates of variance components.
    """
    sizes = np.bincount(unit).astype(float)
    r = 1.0 if influence is None else shared_part(unit, influence)
    a, w = sizes * (1 + (sizes - 1) * r), sizes / sizes.sum()
    total, aa, wa, ww = a.sum(), a @ a, w @ a, w @ w
    # Trace, and trace of the square, of diag(a) - w a' - a w' + total w w': the form's matrix in independent numbers.
    trace = total - 2 * wa + total * ww
    off_diagonal = 2 * (wa**2 + ww * aa) - 4 * total * wa * ww + (total * ww) ** 2
    square = aa + 2 * (a @ (total * w**2 - 2 * w * a)) + off_diagonal
    if len(sizes) < 2 or not trace > 0:
        return SmallSample(1.0, 1.0)
    return SmallSample(float(np.sqrt(total / trace)), float(max(trace**2 / square, 1)))


def shared_part(unit: Array, numbers: Array) -> float:
    """Return the share of the variance of numbers [n] between families, 0 to 1, by the analysis of variance.

    References
    ----------
    Donner (1986), A review of inference procedures for the intraclass correlation coefficient.
    """
    sizes = np.bincount(unit)
    families, n = len(sizes), len(unit)
    if not 1 < families < n:
        return 0.0
    mean = np.bincount(unit, numbers) / sizes
    within = ((numbers - mean[unit]) ** 2).sum() / (n - families)
    of_means = (sizes * (mean - numbers.mean()) ** 2).sum() / (families - 1)
    usual_size = (n - (sizes**2).sum() / n) / (families - 1)
    between = max((of_means - within) / usual_size, 0)
    return float(between / (between + within)) if between + within > 0 else 0.0


def standard_ranks(x: Array) -> Array:
    """Return the standardised ranks of x [n], mean ranks for ties; NaN if all tie.

    They are cached, because a column is part of hundreds of pairs.
    """
    return _standard_ranks(x.astype(float).tobytes())


@lru_cache(maxsize=256)
def _standard_ranks(numbers: bytes) -> Array:
    ranks = stats.rankdata(np.frombuffer(numbers))
    ranks -= ranks.mean()
    with np.errstate(invalid="ignore"):
        ranks /= ranks.std()
    ranks.flags.writeable = False
    return np.asarray(ranks)


def influence_on_spearman(x: Array, y: Array) -> Array:
    """Return each row's part in Fisher's transformation of Spearman's rho of x [n] and y [n], ranks taken as given."""
    rank_x, rank_y = (standard_ranks(v) for v in (x, y))
    rho = float(np.clip((rank_x * rank_y).mean(), -NEARLY_ONE, NEARLY_ONE))
    deviation = rank_x * rank_y - rho / 2 * (rank_x**2 + rank_y**2)
    return np.asarray(deviation / (1 - rho**2))


def fisher(drawn: Array, value: float, n: int) -> Array:
    """Return Fisher's transformation of a correlation in resamples of n rows, whose value in all rows is ``value``.

    Resamples of few rows may reach 1, where the transformation is infinite, so they are clipped.
    """
    bound = max(1 - 1 / n**2, abs(value))
    return np.asarray(np.arctanh(np.clip(drawn, -bound, bound)))


MIDDLE = stats.norm.cdf([-1, 1])


def middle_error(drawn: Array) -> float:
    """Return half the width of the middle 68% of resamples [b], a robust standard error; NaNs are left out."""
    return float(middle_errors(drawn))


def middle_errors(drawn: Array) -> Array:
    """Return the same for many at once: [..., b] to [...]."""
    # Nanquantile takes far longer.
    quantile = np.nanquantile if np.isnan(drawn).any() else np.quantile
    low, high = quantile(drawn, MIDDLE, axis=-1)
    return np.asarray((high - low) / 2)


def interval(
    value: float | None, resampled: Array, small: SmallSample, n: int
) -> tuple[tuple[float, float] | None, float | None, str | None]:
    """Return the interval of a correlation of n rows, its p value, and the reason if there is none."""
    defined = resampled[np.isfinite(resampled)]
    if value is None or len(defined) < max(len(resampled) / 2, 2):
        return None, None, "no interval: undefined in most resamples"
    if abs(value) >= NEARLY_ONE:
        low, high = np.quantile(defined, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        return (float(min(low, value)), float(max(high, value))), None, None
    z = float(np.arctanh(value))
    error = middle_error(fisher(defined, value, n))
    half = small.half_width(error)
    ci = float(np.tanh(z - half)), float(np.tanh(z + half))
    return ci, small.p_value(z, error), None


KEPT_BYTES = 400_000_000  # of ranks in resamples, which the other columns of a table need again
# Rows per family above which a product over families is faster than sums along the order.
MANY_PER_FAMILY = 4


def draw(units: int, resamples: int, seed: int) -> Array:
    """Return how often each unit is drawn, with replacement, into each resample: integers [resamples, units]."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)


class Resamples:
    """The same resamples for many columns, whose ranks are computed once.

    Parameters
    ----------
    unit
        Each row's family, numbers from 0, [n].
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
        """Draw resamples of the families that ``unit`` [n] numbers."""
        return cls(unit, draw(int(unit.max(initial=-1)) + 1, resamples, seed))

    @cached_property
    def _single(self) -> Array:
        # Single precision holds counts and ranks without error.
        return self.counts.astype(np.float32)

    @cached_property
    def _weights(self) -> Array:
        return self._single[:, self.unit]

    @cached_property
    def _roots(self) -> Array:
        return np.sqrt(self._weights)

    def pearson(self, x: Array, y: Array) -> Array:
        """Return Pearson's r of x [n] and y [n] in every resample: float64 [b]."""
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
        """Return Spearman's rho in every resample, with the ranks of that resample (mean ranks for ties): float64 [b].

        Single precision is exact to about 1e-6, far below the noise of the resampling.
        """
        # Ranks are the key of the cache, so a rescaled column is found again.
        x, y = standard_ranks(x), standard_ranks(y)
        key = (x.tobytes(), y.tobytes())
        if key not in self._spearman:
            (ranks_x, length_x), (ranks_y, length_y) = self._ranked(x), self._ranked(y)
            products = np.einsum("bn,bn->b", ranks_x, ranks_y).astype(float)
            self._spearman[key] = _ratio(products, length_x * length_y)
        return self._spearman[key]

    def _ranked(self, x: Array) -> tuple[Array, Array]:
        """Return the centred ranks of x in every resample, times the root of the weights [b, n], and their norm [b]."""
        key = x.tobytes()
        if key not in self._ranks:
            if MANY_PER_FAMILY * len(self._sizes) < len(x):
                ranks = self._ranks_by_family(x)
            else:
                ranks = self._ranks_by_order(x)
            ranks *= self._roots
            self._ranks[key] = ranks, np.sqrt(np.einsum("bn,bn->b", ranks, ranks)).astype(float)
            while len(self._ranks) > 2 and len(self._ranks) * ranks.nbytes > KEPT_BYTES:
                self._ranks.popitem(last=False)
        self._ranks.move_to_end(key)
        return self._ranks[key]

    def _ranks_by_family(self, x: Array) -> Array:
        """Return ranks as sums over families: how many rows of each are below, with half of those equal."""
        value, equal = self._equal(x)
        below = equal.cumsum(axis=0) - equal / 2 - self._sizes / 2
        return self._single @ below.astype(np.float32)[value].T

    def _equal(self, x: Array) -> tuple[Array, Array]:
        """Return the number of each row's value [n], and its count in every family, float32 [values, g]."""
        value = np.unique(x, return_inverse=True)[1]
        places = value * len(self._sizes) + self.unit
        shape = int(value.max()) + 1, len(self._sizes)
        counts = np.bincount(places, minlength=shape[0] * shape[1])
        return value, counts.reshape(shape).astype(np.float32)

    def _ranks_by_order(self, x: Array) -> Array:
        """Return the same ranks as a running sum of the weights along the order of x."""
        value = np.unique(x, return_inverse=True)[1]
        order = np.argsort(value, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(value[order]) > 0])
        equal = np.add.reduceat(self._weights[:, order], starts, axis=1)
        below = equal.cumsum(axis=1) - equal / 2 - self._weights.sum(axis=1, keepdims=True) / 2
        return below[:, value]

    def kendall(self, x: Array, y: Array) -> Array:
        """Return Kendall's tau-b in every resample: float64 [b]."""
        counts = self.counts.astype(float)
        sums = []
        for rows in (self._concordance(x, y), self._untied(x), self._untied(y)):
            sums.append(((counts @ self._of_families(rows.T)) * counts).sum(axis=1))
        return _ratio(sums[0], np.sqrt(sums[1]) * np.sqrt(sums[2]))

    def weighted_kendall(self, x: Array, y: Array) -> Array:
        r"""Return weighted Kendall (hyperbolic, high values weigh most) in every resample: float64 [b].

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
        """Return each row's concordant minus discordant pairs with the rows of every family: [g, n]."""
        signs = _signs(x) * _signs(y)
        return self._of_families(signs).astype(float)

    def _untied(self, x: Array) -> Array:
        """Return for each row how many rows of every family have a different x: [g, n]."""
        value, equal = self._equal(x)
        return np.asarray((self._sizes - equal)[value].T, dtype=float)

    def _hyperbolic(self, order: Array) -> Array:
        """Return the weights of all copies of each row, float64 [b, n]; ranks follow ``order`` [n], highest first."""
        copies = self.counts[:, self.unit[order]]
        behind = copies.cumsum(axis=1)
        harmonic = np.r_[0, np.cumsum(1 / np.arange(1, behind.max() + 1))]
        weight = np.empty(copies.shape)
        weight[:, order] = harmonic[behind] - harmonic[behind - copies]
        return weight

    def _of_families(self, columns: Array) -> Array:
        """Return sums over the rows of each family: [n, k] to [g, k]."""
        order = np.argsort(self.unit, kind="stable")
        kind = np.int32 if columns.dtype.kind == "i" else float
        starts = self._sizes.cumsum() - self._sizes
        return np.asarray(np.add.reduceat(columns[order], starts, axis=0, dtype=kind))


def _signs(x: Array) -> Array:
    """Return the signs of all differences, int8 [n, n]."""
    return (x[:, None] > x).astype(np.int8) - (x[:, None] < x)


def _ratio(products: Array, lengths: Array) -> Array:
    """Return correlations, NaN where a length is 0, and not beyond 1 by rounding."""
    ratios = np.divide(products, lengths, out=np.full(len(products), np.nan), where=lengths > 0)
    return np.clip(ratios, -1, 1)
