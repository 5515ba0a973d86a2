"""Prediction of the accuracy of models of an unseen family by a score, and the regret of choosing by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import comb

from .bootstrap import LEVEL, middle_error, small_sample
from .correlation import MIN_ROWS, MIN_UNITS, Bootstraps, why_undefined
from .sample import families_of, scores_of, sign_of, succeeded, values

Array = np.ndarray
TOP_K = (1, 5, 10)
ALL = "all models"
NO_ERROR = 1e-12  # share of the baseline's squared error: below it, a line fits all points
MAX_AT_ONCE = 500_000  # resamples times families, to bound the memory of some twenty arrays
BANDS = 3
COSTS = {"gmacs": "GMACs", "params_m": "million parameters"}


@dataclass(frozen=True)
class Prediction:
    """Leave-one-family-out prediction by a straight line; errors in percentage points, R2 against the others' mean."""

    n: int
    families: int
    r2: float | None = None
    mean_absolute_error: float | None = None
    reason: str | None = None
    r2_ci: tuple[float, float] | None = None


@dataclass(frozen=True)
class Regret:
    """Accuracy (percentage points) lost by taking the best of a score's first 1, 5, 10 models instead of the best one.

    Ties are broken at random; ``lost`` is the expectation.
    """

    n: int
    best: float | None = None
    lost: Mapping[int, float] | None = None
    reason: str | None = None
    lost_ci: Mapping[int, tuple[float, float] | None] | None = None


def leave_one_family_out(
    x: Array, y: Array, families: Array | pd.Series, bootstraps: Bootstraps | None = None
) -> Prediction:
    """Predict each family's accuracies by the regression line of all others.

    The interval of R2 is symmetric in log(1 - R2), as those of correlations are in Fisher's transformation. In a
    resample all copies of a family are left out at once.

    Parameters
    ----------
    x, y
        Numbers [n]; pairs with a NaN are left out.
    families
        Each row's family [n].
    bootstraps
        The resamples of families; without them there is no interval.

    Returns
    -------
    Prediction
        R2 is 1 minus the squared error over that of predicting the mean of the other families; it may be negative.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    group = pd.factorize(np.asarray(families, dtype=object)[known])[0]
    count = int(group.max(initial=-1)) + 1
    reason = why_undefined(x, y)
    if reason is None and count < MIN_UNITS:
        reason = f"{count} families, fewer than {MIN_UNITS}"
    if reason:
        return Prediction(len(x), count, reason=reason)
    x, y = (x - x.mean()) / x.std(), y - y.mean()
    sums = _sums(x, y, group)
    lines = _lines_of_others(sums, np.ones((1, count)))
    if np.isnan(lines).any():
        return Prediction(len(x), count, reason="without one family the score is constant")
    intercept, slope, mean = lines[:, 0, group]
    error, baseline = y - intercept - slope * x, y - mean
    ratio = float((error**2).sum() / (baseline**2).sum())
    prediction = Prediction(len(x), count, 1 - ratio, float(np.abs(error).mean()))
    if bootstraps is None or ratio < NO_ERROR:
        return prediction
    counts = bootstraps.of(group).counts
    parts = np.array_split(counts, max(1, counts.size // MAX_AT_ONCE))
    drawn = np.concatenate([_error_ratios(sums, part) for part in parts])
    if np.isnan(drawn).mean() > 0.5:
        return prediction
    small = small_sample(group, error**2 - ratio * baseline**2)
    half = small.half_width(middle_error(np.log(drawn)))
    ci = 1 - ratio * float(np.exp(half)), 1 - ratio * float(np.exp(-half))
    return replace(prediction, r2_ci=ci)


def _sums(x: Array, y: Array, group: Array) -> Array:
    """Return sums over each family of 1, x, y, xx, xy, yy: [6, g]."""
    columns = (np.ones_like(x), x, y, x * x, x * y, y * y)
    return np.array([np.bincount(group, column) for column in columns])


def _lines_of_others(sums: Array, counts: Array) -> Array:
    """Return intercept, slope and mean without each family, in every resample: [3, b, g]; NaN where x is constant."""
    others = (sums @ counts.T)[:, :, None] - sums[:, None, :] * counts
    n, sx, sy, sxx, sxy, _ = others
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = sxx - sx * sx / n
        slope = (sxy - sx * sy / n) / spread
        lines = np.array([sy / n - slope * sx / n, slope, sy / n])
    lines[:, (n < MIN_ROWS) | (spread < 1e-9)] = np.nan
    return lines


def _error_ratios(sums: Array, counts: Array) -> Array:
    """Return the ratio of the squared errors of the line and of the mean, in every resample [b]; NaN without a line."""
    intercept, slope, mean = _lines_of_others(sums, counts)
    n, sx, sy, sxx, sxy, syy = sums
    error = syy - 2 * intercept * sy - 2 * slope * sxy
    error += n * intercept**2 + 2 * intercept * slope * sx + slope**2 * sxx
    baseline = syy - 2 * mean * sy + n * mean**2
    drawn_error = np.where(counts > 0, counts * error, 0).sum(axis=1)
    drawn_baseline = np.where(counts > 0, counts * baseline, 0).sum(axis=1)
    return np.asarray(np.maximum(drawn_error, NO_ERROR * drawn_baseline) / drawn_baseline)


def regret(
    x: Array,
    y: Array,
    taken: tuple[int, ...] = TOP_K,
    *,
    families: Array | pd.Series | None = None,
    bootstraps: Bootstraps | None = None,
) -> Regret:
    """Return the expected loss of choosing among the models that a score x [n] ranks first.

    With families [n] and their resamples it has an interval: the middle 95% of the resamples, widened to include the
    value itself. A family that is drawn twice offers two copies of its models.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    reason = why_undefined(x, y)
    if reason:
        return Regret(len(x), reason=reason)
    within = tuple(k for k in taken if k <= len(x))
    best = float(y.max())
    all_once = np.ones((1, 1), dtype=int), np.zeros(len(x), dtype=int)
    expected = expected_best(x, y, *all_once, within)[:, 0]
    # Rounding must not make it negative.
    lost = np.maximum(best - expected, 0)
    result = Regret(len(x), best, dict(zip(within, lost.tolist(), strict=True)))
    if families is None or bootstraps is None:
        return result
    unit = pd.factorize(np.asarray(families, dtype=object)[known])[0]
    if int(unit.max()) + 1 < MIN_UNITS:
        return result
    counts = bootstraps.of(unit).counts
    of_family = np.full(counts.shape[1], -np.inf)
    np.maximum.at(of_family, unit, y)
    best_there = np.where(counts > 0, of_family, -np.inf).max(axis=1)
    drawn = best_there - expected_best(x, y, counts, unit, within)
    low, high = np.nanquantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=1)
    lows = np.minimum(low, lost).tolist()
    highs = np.maximum(high, lost).tolist()
    limits = zip(lows, highs, strict=True)
    return replace(result, lost_ci=dict(zip(within, limits, strict=True)))


def expected_best(x: Array, y: Array, counts: Array, unit: Array, taken: Sequence[int]) -> Array:
    """Return the expected maximum of y among the k rows with the largest x, ties broken at random: [len(taken), b].

    Parameters
    ----------
    x, y
        Numbers [n].
    counts, unit
        How often each family occurs in each of b samples, [b, g], and the family of each row, [n]. A sample of fewer
        than k rows gives NaN.
    """
    order = np.lexsort((-y, -x))
    order = order[: _rows_that_suffice(x[order], counts, unit[order], max(taken))]
    x, y, copies = x[order], y[order], counts[:, unit[order]]
    first = np.flatnonzero(np.r_[True, np.diff(x) != 0])
    end = np.r_[first[1:], len(x)]
    of_group = np.add.reduceat(copies, first, axis=1)
    reached = of_group.cumsum(axis=1)
    greatest = np.maximum.accumulate(np.where(copies > 0, y, -np.inf), axis=1)
    best = np.full((len(taken), len(copies)), np.nan)
    for i, k in enumerate(taken):
        enough = reached[:, -1] >= k
        last_group = (reached >= k).argmax(axis=1)
        for group in np.unique(last_group[enough]):
            there = np.flatnonzero(enough & (last_group == group))
            rows = slice(first[group], end[group])
            better = greatest[there, first[group] - 1] if group else np.full(len(there), -np.inf)
            wanted = k - (reached[there, group] - of_group[there, group])
            best[i, there] = _expected_greatest(y[rows], copies[there, rows], wanted, better)
    return best


def _rows_that_suffice(x: Array, counts: Array, unit: Array, most: int) -> int:
    """Return how many of the ordered rows suffice for the first ``most`` of every sample, and their ties."""
    n, rows = len(x), 8 * most
    while rows < n and (counts[:, unit[:rows]].sum(axis=1) < most).any():
        rows *= 2
    return n if rows >= n else rows + int((x[rows:] == x[rows - 1]).sum())


def _expected_greatest(y: Array, copies: Array, wanted: Array, better: Array) -> Array:
    """Return the expected maximum of ``better`` and ``wanted`` [b] draws without replacement from y [m], descending."""
    passed = copies.cumsum(axis=1)
    total, draws = passed[:, -1:], wanted[:, None]
    # The probability that none of the largest is drawn.
    none = comb(total - passed, draws) / comb(total, draws)
    chance = -np.diff(none, axis=1, prepend=1)
    return np.asarray((chance * np.maximum(y, better[:, None])).sum(axis=1))


def predictions(
    rows: pd.DataFrame, target: str, bootstraps: Bootstraps | None = None
) -> dict[str, Prediction]:
    """Return every score's leave-one-family-out prediction of the target."""
    rows = succeeded(rows)
    families, y = families_of(rows)[1], values(rows, target)
    return {
        score: leave_one_family_out(values(rows, score), y, families, bootstraps)
        for score in scores_of(rows)
    }


def regrets(
    rows: pd.DataFrame, target: str, bootstraps: Bootstraps | None = None
) -> dict[str, dict[str, Regret]]:
    """Return every score's regret, overall (with intervals) and within thirds of the cost: by band, by score."""
    rows = succeeded(rows)
    families, y = families_of(rows)[1], values(rows, target)
    bands = cost_bands(rows)
    by_band: dict[str, dict[str, Regret]] = {band: {} for band in (ALL, *bands)}
    for score in scores_of(rows):
        x = sign_of(score) * values(rows, score)
        by_band[ALL][score] = regret(x, y, families=families, bootstraps=bootstraps)
        for band, within in bands.items():
            by_band[band][score] = regret(x[within], y[within])
    return by_band


def cost_bands(rows: pd.DataFrame) -> dict[str, Array]:
    """Return which rows are in each third of GMACs, or of parameters if those are unknown; none without either."""
    for column, unit in COSTS.items():
        cost = values(rows, column)
        if np.unique(cost[np.isfinite(cost)]).size >= 2 * BANDS:
            edges = np.nanquantile(cost, np.linspace(0, 1, BANDS + 1))
            band = np.searchsorted(edges[1:-1], cost, side="left")
            bands = {}
            for i in range(BANDS):
                name = f"{edges[i]:.3g} to {edges[i + 1]:.3g} {unit}"
                bands[name] = np.isfinite(cost) & (band == i)
            return bands
    return {}
