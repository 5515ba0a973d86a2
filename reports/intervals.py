"""Intervals of correlations from resamples of families, in Fisher's transformation, for few and unequal families."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

Array = np.ndarray
LEVEL = 0.95
# This near to 1, Fisher's transformation is infinite up to rounding.
NEARLY_ONE = 1 - 1e-12


@dataclass(frozen=True)
class Precision:
    """What a bootstrap of families lacks: its error is to be multiplied by ``scale``, and has so many ``degrees``."""

    scale: float
    degrees: float

    def half_width(self, error: float) -> float:
        """Half the interval at ``LEVEL`` of an estimate with this error from the resamples."""
        return float(stats.t.ppf(0.5 + LEVEL / 2, self.degrees) * self.scale * error)

    def p_value(self, value: float, error: float) -> float | None:
        """Two-sided p of 0; None without an error."""
        return (
            float(2 * stats.t.sf(abs(value) / (self.scale * error), self.degrees))
            if error > 0
            else None
        )


def precision(unit: Array, influence: Array | None = None) -> Precision:
    r"""How precise a bootstrap of unequal families is.

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
        Each row's part in the estimate, up to a factor and a constant, [n]. Without it the rows of a family are taken
        for copies of each other (r = 1): the worst case.

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
        return Precision(1.0, 1.0)
    return Precision(float(np.sqrt(total / trace)), float(max(trace**2 / square, 1)))


def shared_part(unit: Array, numbers: Array) -> float:
    """The share of the variance of numbers [n] that lies between families: 0 to 1, by the analysis of variance.

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
    """The ranks of x [n], ties with their mean rank, less their mean and over their standard deviation; NaN if all tie.

    A column is ranked once, though it stands in hundreds of pairs.
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
    """Each row's part in Fisher's transformation of Spearman's rho of x [n] and y [n], as if its ranks were given."""
    rank_x, rank_y = (standard_ranks(v) for v in (x, y))
    rho = float(np.clip((rank_x * rank_y).mean(), -NEARLY_ONE, NEARLY_ONE))
    deviation = rank_x * rank_y - rho / 2 * (rank_x**2 + rank_y**2)
    return np.asarray(deviation / (1 - rho**2))


def fisher(drawn: Array, value: float, n: int) -> Array:
    """Fisher's transformation of a correlation in resamples of n rows, whose value in all rows is ``value``.

    Resamples of few rows may reach 1, where the transformation has no bound: they are held off it.
    """
    bound = max(1 - 1 / n**2, abs(value))
    return np.asarray(np.arctanh(np.clip(drawn, -bound, bound)))


MIDDLE = stats.norm.cdf([-1, 1])


def middle_error(drawn: Array) -> float:
    """Half the width of the middle 68% of resamples [b], which the tails cannot move; NaN are left out."""
    return float(middle_errors(drawn))


def middle_errors(drawn: Array) -> Array:
    """The same of many at once: [..., b] to [...]."""
    # The former takes far longer.
    quantile = np.nanquantile if np.isnan(drawn).any() else np.quantile
    low, high = quantile(drawn, MIDDLE, axis=-1)
    return np.asarray((high - low) / 2)


def interval(
    value: float | None, resampled: Array, precise: Precision, n: int
) -> tuple[tuple[float, float] | None, float | None, str | None]:
    """The interval of a correlation of n rows, its p value, and why there is none."""
    defined = resampled[np.isfinite(resampled)]
    if value is None or len(defined) < max(len(resampled) / 2, 2):
        return None, None, "no interval: undefined in most resamples"
    if abs(value) >= NEARLY_ONE:
        low, high = np.quantile(defined, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        return (float(min(low, value)), float(max(high, value))), None, None
    z = float(np.arctanh(value))
    error = middle_error(fisher(defined, value, n))
    half = precise.half_width(error)
    ci = float(np.tanh(z - half)), float(np.tanh(z + half))
    return ci, precise.p_value(z, error), None
