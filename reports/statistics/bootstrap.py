"""Bootstrap of correlations over whole families of related rows, computed as matrix products with family counts.

A resample is a row of ``counts`` [b, g]: how often each of the g families was drawn. ``unit`` [n] is the family of each
row, so row i occurs ``counts[:, unit[i]]`` times in the resamples. Nothing is copied: multiplicities are weights, and
sums over families are taken before sums over resamples. A coefficient that is undefined in a resample (x or y is
constant in it) is NaN.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from scipy import stats

Array = np.ndarray
RESAMPLES = 2000
# Weighted Kendall is computed resample by resample, 6 ms each for a thousand rows.
WEIGHTED_KENDALL_RESAMPLES = 100
LEVEL = 0.95
# This close to 1, Fisher's transformation is infinite up to rounding.
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
    """Return `middle_error` over the last axis: [..., b] to [...]."""
    # Use nanquantile only where needed, because it takes far longer.
    quantile = np.nanquantile if np.isnan(drawn).any() else np.quantile
    low, high = quantile(drawn, MIDDLE, axis=-1)
    return np.asarray((high - low) / 2)


def interval(
    value: float | None, resampled: Array, small: SmallSample, n: int
) -> tuple[tuple[float, float] | None, float | None, str | None]:
    """Return the interval of a correlation of n rows, its p value, and the reason if it has no interval."""
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


CHUNK_BYTES = 16_000_000  # of ranks at a time, so that they stay in the processor's cache
FEWEST_AT_ONCE = 64  # resamples; with fewer, the counts of every family would be read too often
# Rows per family above which a product over families is faster than sums along the order.
MANY_PER_FAMILY = 4
ROWS_AT_ONCE = 64  # whose pairs with all rows stay in the cache


def draw(units: int, resamples: int, seed: int) -> Array:
    """Return how often each unit is drawn, with replacement, into each resample: integers [resamples, units]."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(units, np.full(units, 1 / units), size=resamples)
    return drawn.astype(np.int32)


class Resamples:
    """The same resamples for many columns, with a cache of the results for pairs of columns.

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
        self._lengths: dict[bytes, Array] = {}
        self._spearman: dict[tuple[bytes, bytes], Array] = {}
        self._concordances: dict[bytes, Array] = {}

    def first(self, resamples: int) -> "Resamples":
        """Return the first of these resamples."""
        few = Resamples(self.unit, self.counts[:resamples])
        few._concordances = self._concordances  # which do not depend on the resamples
        return few

    @classmethod
    def drawn(cls, unit: Array, resamples: int, seed: int) -> "Resamples":
        """Draw resamples of the families that ``unit`` [n] numbers."""
        return cls(unit, draw(int(unit.max(initial=-1)) + 1, resamples, seed))

    @cached_property
    def _double(self) -> Array:
        return self.counts.astype(float)

    def pearson(self, x: Array, y: Array) -> Array:
        """Return Pearson's r of x [n] and y [n] in every resample: float64 [b]."""
        x = (x - x.mean()) / (x.std() or 1)
        y = (y - y.mean()) / (y.std() or 1)
        columns = np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
        rows, *sums = (self._double @ self._of_families(columns)).T
        mean_x, mean_y, xx, yy, xy = (of_rows / rows for of_rows in sums)
        spread_x = np.sqrt(np.maximum(xx - mean_x**2, 0))
        spread_y = np.sqrt(np.maximum(yy - mean_y**2, 0))
        spread = spread_x * spread_y
        self.rank([x], [y])
        varies = (self._lengths[_key(x)] > 0) & (self._lengths[_key(y)] > 0)
        return _ratio(xy - mean_x * mean_y, np.where(varies, spread, 0))

    def spearman(self, x: Array, y: Array) -> Array:
        """Return Spearman's rho in every resample, with the ranks of that resample (mean ranks for ties): float64 [b].

        Single precision is exact to about 1e-6, far below the noise of the resampling.
        """
        self.rank([x], [y])
        return self._spearman[_key(x), _key(y)]

    def rank(self, xs: Sequence[Array], ys: Sequence[Array]) -> None:
        """Compute rho of every x [n] with every y [n] in all resamples at once: far faster than pair by pair."""
        # Ranks are the key of the cache, so a rescaled column is found again.
        across = {_key(x): standard_ranks(x) for x in xs}
        up = {_key(y): standard_ranks(y) for y in ys}
        pairs = [pair for pair in product(across, up) if pair not in self._spearman]
        if not pairs:
            return
        across = {key: across[key] for key, _ in pairs}
        up = {key: up[key] for _, key in pairs}
        columns = across | up
        place = {key: i for i, key in enumerate(columns)}
        rows, others = ([place[key] for key in keys] for keys in (across, up))
        ranks_in = self._ranks_in(list(columns.values()))
        lengths: list[Array] = []
        products: list[Array] = []
        step = max(CHUNK_BYTES // (4 * len(columns) * len(self.unit)), FEWEST_AT_ONCE)
        for start in range(0, len(self.counts), step):
            # Single precision holds counts and ranks without error.
            counts = self.counts[start : start + step].astype(np.float32)
            ranks = ranks_in(counts)
            ranks *= np.sqrt(counts)[:, None, self.unit]
            lengths.append(np.einsum("bcn,bcn->bc", ranks, ranks))
            products.append(np.einsum("bin,bjn->bij", ranks[:, rows], ranks[:, others]))
        length = np.sqrt(np.concatenate(lengths)).astype(float)
        found = np.concatenate(products).astype(float)
        for key, i in place.items():
            self._lengths[key] = length[:, i]
        for (i, x), (j, y) in product(enumerate(across), enumerate(up)):
            self._spearman[x, y] = _ratio(found[:, i, j], length[:, place[x]] * length[:, place[y]])

    def _ranks_in(self, columns: Sequence[Array]) -> Callable[[Array], Array]:
        """Return a function of counts [b, g] that gives the centred ranks of k columns in resamples: [b, k, n]."""
        n, families = len(self.unit), len(self._sizes)
        if MANY_PER_FAMILY * families < n:
            # Ranks are sums over families: the number of rows of each below, plus half of those equal.
            below = np.empty((families, len(columns), n), dtype=np.float32)
            for k, column in enumerate(columns):
                value, equal = self._equal(column)
                of_values = equal.cumsum(axis=0) - equal / 2 - self._sizes / 2
                below[:, k] = of_values.astype(np.float32)[value].T
            return lambda counts: (counts @ below.reshape(families, -1)).reshape(
                -1, *below.shape[1:]
            )
        orders = [_order(column) for column in columns]

        def along_the_orders(counts: Array) -> Array:
            weights = counts[:, self.unit]
            half = weights.sum(axis=1, keepdims=True) / 2
            ranks = np.empty((len(counts), len(columns), n), dtype=np.float32)
            for k, (order, value, ends) in enumerate(orders):
                upto = weights[:, order].cumsum(axis=1)[:, ends]
                below = upto / 2 - half
                below[:, 1:] += upto[:, :-1] / 2
                ranks[:, k] = below[:, value]
            return ranks

        return along_the_orders

    def _equal(self, x: Array) -> tuple[Array, Array]:
        """Return the index of each row's distinct value [n], and its count in every family, float32 [values, g]."""
        value = np.unique(x, return_inverse=True)[1]
        places = value * len(self._sizes) + self.unit
        shape = int(value.max()) + 1, len(self._sizes)
        counts = np.bincount(places, minlength=shape[0] * shape[1])
        return value, counts.reshape(shape).astype(np.float32)

    def kendall(self, x: Array, y: Array) -> Array:
        """Return Kendall's tau-b in every resample: float64 [b]."""
        counts = self._double
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
        of_rows = [self._double @ of_families for of_families in pairs]
        halves = []
        for first, then in ((x, y), (y, x)):
            weight = self._hyperbolic(np.lexsort((then, first))[::-1])
            products, length_x, length_y = (np.einsum("bn,bn->b", weight, sums) for sums in of_rows)
            halves.append(_ratio(products, np.sqrt(length_x) * np.sqrt(length_y)))
        return np.asarray((halves[0] + halves[1]) / 2)

    def _concordance(self, x: Array, y: Array) -> Array:
        """Return each row's concordant minus discordant pairs with the rows of every family: [g, n]."""
        key = x.tobytes() + y.tobytes()
        if key not in self._concordances:
            self._concordances.clear()  # both Kendalls of a pair need it, one after the other
            self._concordances[key] = self._concordant(x, y)
        return self._concordances[key]

    def _concordant(self, x: Array, y: Array) -> Array:
        order = np.argsort(self.unit, kind="stable")
        pairs = np.zeros((len(self._sizes), len(x)))
        for family, rows in enumerate(np.split(order, self._sizes.cumsum()[:-1])):
            for start in range(0, len(rows), ROWS_AT_ONCE):
                some = rows[start : start + ROWS_AT_ONCE]
                signs = _signs(x[some], x) * _signs(y[some], y)
                pairs[family] += signs.sum(axis=0, dtype=np.int32)
        return pairs

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
        starts = self._sizes.cumsum() - self._sizes
        return np.asarray(np.add.reduceat(columns[order], starts, axis=0))


def _key(x: Array) -> bytes:
    return standard_ranks(x).tobytes()


def _order(x: Array) -> tuple[Array, Array, Array]:
    """Return the order of x [n], the index of each row's distinct value [n], and each value's last place in it."""
    value = np.unique(x, return_inverse=True)[1]
    return np.argsort(value, kind="stable"), value, np.bincount(value).cumsum() - 1


def _signs(x: Array, others: Array) -> Array:
    """Return the signs of all differences of x [m] and others [n], int8 [m, n]."""
    return (x[:, None] > others).astype(np.int8) - (x[:, None] < others)


def _ratio(products: Array, lengths: Array) -> Array:
    """Return correlations, NaN where a length is 0, and not beyond 1 by rounding."""
    ratios = np.divide(products, lengths, out=np.full(len(products), np.nan), where=lengths > 0)
    return np.clip(ratios, -1, 1)
