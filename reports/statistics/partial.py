"""Correlations of a score and a target given controls, whose regressions are refitted in each resample."""

import numpy as np
import pandas as pd
from scipy import stats

from .bootstrap import SmallSample, influence_on_spearman, interval, small_sample
from .correlation import MIN_UNITS, Bootstraps, Coefficient, Correlation, why_undefined
from .sample import effective_number, families_of, scores_of, succeeded, values

Array = np.ndarray
CONTROLS = {
    "log parameters": ("log10_params",),
    "log embedding scale and dimension": ("log10_rms", "log10_dim"),
}
NOTHING_LEFT = 1e-9  # the share of unexplained variance that counts as 0


def partial_correlations(
    rows: pd.DataFrame, target: str, bootstraps: Bootstraps
) -> dict[str, dict[str, Correlation | str]]:
    """Correlate the residuals of each score and the target after linear regression on controls.

    Returns
    -------
    dict
        By name of the controls, by score: a correlation, or why there is none.
    """
    rows = succeeded(rows)
    families = families_of(rows)[1].to_numpy(dtype=object)
    y = values(rows, target)
    given_controls: dict[str, dict[str, Correlation | str]] = {}
    for title, controls in CONTROLS.items():
        given = np.column_stack([_control(rows, name) for name in controls])
        given_controls[title] = {}
        for score in scores_of(rows):
            if score in controls:
                continue
            x = values(rows, score)
            known = np.isfinite(x) & np.isfinite(y) & np.isfinite(given).all(axis=1)
            reason = why_undefined(x[known], y[known])
            if known.sum() < given.shape[1] + MIN_UNITS:
                reason = f"{known.sum()} rows have all values"
            unit = pd.factorize(families[known])[0]
            given_controls[title][score] = reason or partial_correlation(
                x[known], y[known], given[known], unit, bootstraps
            )
    return given_controls


def partial_correlation(
    x: Array, y: Array, given: Array, unit: Array, bootstraps: Bootstraps
) -> Correlation:
    """Compute the correlation of x [n] and y [n] given controls [n, k].

    Pearson's interval is from resamples of families, with the regressions on the controls refitted in each. Each
    control costs a degree of freedom, and the error is scaled up accordingly, which gives the factor of least squares,
    :math:`G / (G - 1 - k)`, for G families of one size. The other coefficients, of the residuals, have no interval.

    Parameters
    ----------
    unit
        Each row's family, numbers from 0, [n].
    """
    n, controls = given.shape
    units, effective = int(unit.max(initial=-1)) + 1, effective_number(unit)
    design = np.column_stack([np.ones(n), given])
    left_x, left_y = left_by(x, design), left_by(y, design)
    reason = why_undefined(left_x, left_y)
    if reason:
        return Correlation(n, units, effective, *[Coefficient(reason=reason)] * 4)
    others = []
    why = "no interval: only Pearson's is refitted in each resample"
    for coefficient in (stats.spearmanr, stats.kendalltau, stats.weightedtau):
        others.append(Coefficient(float(coefficient(left_x, left_y).statistic), reason=why))
    value = float(stats.pearsonr(left_x, left_y).statistic)
    if units < MIN_UNITS + controls:
        why = f"no interval: {units} independent units, fewer than {MIN_UNITS + controls}"
        return Correlation(n, units, effective, Coefficient(value, reason=why), *others)
    drawn = resampled_partial(x, y, given, bootstraps.of(unit).counts, unit)
    small = less_controls(small_sample(unit, influence_on_spearman(left_x, left_y)), controls)
    ci, p, why_none = interval(value, drawn, small, n)
    pearson = Coefficient(value, ci=ci, p_families=p, reason=why_none)
    return Correlation(n, units, effective, pearson, *others)


def left_by(values: Array, design: Array) -> Array:
    """Return the residuals of least squares of the values [n] on the design [n, k]."""
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    return np.asarray(values - design @ coefficients)


def resampled_partial(x: Array, y: Array, given: Array, counts: Array, unit: Array) -> Array:
    """Return Pearson's partial correlation in every resample, with the controls refitted in each: float64 [b].

    Least squares needs only sums of products over families, which a resample adds up.
    """
    columns = np.column_stack([x, y, given])
    spread = columns.std(axis=0)
    columns = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)
    columns = np.column_stack([columns, np.ones(len(x))])
    products = np.zeros((counts.shape[1], columns.shape[1], columns.shape[1]))
    np.add.at(products, unit, columns[:, :, None] * columns[:, None, :])
    moments = np.tensordot(counts.astype(float), products, axes=1)
    both = moments[:, :2, :2]
    across = moments[:, :2, 2:]
    controls = moments[:, 2:, 2:]
    inverse = np.linalg.pinv(controls, rcond=1e-10, hermitian=True)
    left = both - across @ inverse @ across.transpose(0, 2, 1)
    variance = left[:, [0, 1], [0, 1]]
    all_of_it = both[:, [0, 1], [0, 1]]
    length = np.sqrt(np.where(variance > NOTHING_LEFT * all_of_it, variance, np.nan)).prod(axis=1)
    return np.asarray(np.clip(left[:, 0, 1] / length, -1, 1))


def less_controls(small: SmallSample, controls: int) -> SmallSample:
    """Return the small-sample correction after fitting the coefficients of the controls."""
    degrees = max(small.degrees - controls, 1)
    return SmallSample(small.scale * float(np.sqrt(small.degrees / degrees)), degrees)


def _control(rows: pd.DataFrame, name: str) -> Array:
    columns = {"log10_rms": "embedding_rms", "log10_dim": "embedding_dim"}
    if name not in columns:
        return values(rows, name)
    numbers = values(rows, columns[name])
    return np.log10(numbers, out=np.full(len(rows), np.nan), where=numbers > 0)
