"""Regressions of accuracy on scores, with errors for unequal variances and for families, and their diagnostics."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.outliers_influence import OLSInfluence, variance_inflation_factor

from .bootstrap import LEVEL, middle_error, precision
from .clustered import clustered_errors
from .correlation import MIN_RANGE, MIN_UNITS, Bootstraps, why_undefined
from .sample import families_of, names, scores_of, succeeded, targets_of, values

MULTIPLE = ("dsmi_z_y", "dsmi_z_x", "dse_z", "log10_params", "img_size")
GREATEST_INFLATION = 10.0
SHOWN = 5  # rows of the greatest influence


@dataclass(frozen=True)
class Regression:
    """Least squares of y on x.

    Standard error, p, interval and covariance of (intercept, slope) are HC3, which assumes independent rows; those
    that end in ``_families`` allow any dependence within a family (CR3, Satterthwaite's degrees of freedom).
    """

    n: int
    intercept: float | None = None
    slope: float | None = None
    standard_error: float | None = None
    p: float | None = None
    ci: tuple[float, float] | None = None
    r2: float | None = None
    covariance: tuple[tuple[float, float], tuple[float, float]] | None = None
    error_families: float | None = None
    p_families: float | None = None
    ci_families: tuple[float, float] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Influence:
    """One row's part in a regression: residual in percentage points, leverage, Cook's distance."""

    model: str
    img_size: int | None
    fitted: float
    residual: float
    leverage: float
    cooks_distance: float


@dataclass(frozen=True)
class Coefficient:
    """A predictor of a multiple regression: percentage points of accuracy for one standard deviation of it.

    ``inflation`` is how many times the variance of its coefficient exceeds that of a predictor without relation to the
    others.
    """

    name: str
    value: float
    ci: tuple[float, float]
    p: float
    inflation: float


@dataclass(frozen=True)
class Multiple:
    """A multiple regression with errors clustered by family; ``why`` has the reason of each predictor left out."""

    n: int
    coefficients: tuple[Coefficient, ...] = ()
    r2: float | None = None
    left_out: tuple[str, ...] = ()
    reason: str | None = None
    why: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mixed:
    """A mixed model with a random intercept for the family; ``share`` is the families' part of the variance."""

    n: int
    families: int
    slope: float | None = None
    ci: tuple[float, float] | None = None
    p: float | None = None
    share: float | None = None
    reason: str | None = None


def ols(
    x: np.ndarray, y: np.ndarray, families: Sequence[Any] | np.ndarray | pd.Series | None = None
) -> Regression:
    """Least squares y = intercept + slope x.

    Parameters
    ----------
    x, y
        Numbers [n]; pairs with a NaN are left out.
    families
        Each row's family [n], for the clustered errors.

    References
    ----------
    MacKinnon and White (1985), estimator HC3; clustered errors,
    see `dsmi_zoo.reports.statistics.clustered`; ``statsmodels.regression.linear_model.OLS``.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    reason = why_undefined(x, y)
    if reason:
        return Regression(len(x), reason=reason)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        design = np.column_stack([np.ones_like(x), x])
        fit = OLS(y, design).fit(cov_type="HC3", use_t=True)
        low, high = (float(limit) for limit in fit.conf_int(alpha=1 - LEVEL)[1])
        covariance = np.asarray(fit.cov_params())
        intercept, slope = float(fit.params[0]), float(fit.params[1])
        r2 = float(fit.rsquared)
        error, p = float(fit.bse[1]), float(fit.pvalues[1])
        squares = (x - x.mean()) ** 2
        leverage = 1 / len(x) + squares.max() / squares.sum()
    if not np.isfinite([intercept, slope, r2]).all():
        return Regression(len(x), reason="the numbers are too large or too small")
    clustered = (
        _clustered(x, y, np.asarray(families, dtype=object)[known]) if families is not None else {}
    )
    # HC3 divides by one less the leverage: at a leverage of 1 it would show nothing but rounding.
    if (
        leverage > 1 - MIN_RANGE
        or not np.isfinite([*covariance.ravel(), low, high, error, p]).all()
    ):
        return Regression(
            len(x), intercept, slope, r2=r2, reason="no error: one row alone fixes the slope"
        )
    (a, b), (c, d) = covariance.tolist()
    return Regression(
        len(x), intercept, slope, error, p, (low, high), r2, ((a, b), (c, d)), **clustered
    )


def family_band(
    x: np.ndarray,
    y: np.ndarray,
    families: Sequence[Any] | np.ndarray | pd.Series,
    at: np.ndarray,
    drawn_by: Bootstraps,
) -> tuple[np.ndarray, np.ndarray] | None:
    """The limits at 0.95 of the least-squares line's height ``at`` [m], from resamples of families.

    At each place the error is half the width of the middle 68% of the resamples' lines, corrected as those of
    correlations are (`dsmi_zoo.reports.statistics.bootstrap.precision`). None with too few families, or where x hardly varies.

    Parameters
    ----------
    x, y
        Numbers [n]; pairs with a NaN are left out.
    families
        Each row's family [n].
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    unit = pd.factorize(np.asarray(families, dtype=object)[known])[0]
    if why_undefined(x, y) or int(unit.max()) + 1 < MIN_UNITS:
        return None
    centre, scale, height = x.mean(), x.std(), y.mean()
    x, y, at = (x - centre) / scale, y - height, (at - centre) / scale
    sums = np.column_stack(
        [np.bincount(unit, column) for column in (np.ones_like(x), x, y, x * x, x * y)]
    )
    n, sx, sy, sxx, sxy = (drawn_by.of(unit).counts @ sums).T
    spread = sxx - sx * sx / n
    spread = np.where(spread > MIN_RANGE * n, spread, np.nan)
    if np.isnan(spread).mean() > 0.5:
        return None
    slope = (sxy - sx * sy / n) / spread
    lines = (sy / n - slope * sx / n)[:, None] + slope[:, None] * at
    own_slope = float(x @ y) / len(x)
    residual = y - own_slope * x
    half = [
        precision(unit, residual * (1 + x * place)).half_width(middle_error(lines[:, i]))
        for i, place in enumerate(at)
    ]
    line = height + own_slope * at
    return line - half, line + half


def regressions(rows: pd.DataFrame) -> dict[str, dict[str, Regression]]:
    """The regression of every target on every score over the measured rows."""
    rows = succeeded(rows)
    families = families_of(rows)[1]
    by_score: dict[str, dict[str, Regression]] = {}
    for score in scores_of(rows):
        x = values(rows, score)
        by_score[score] = {
            target: ols(x, values(rows, target), families) for target in targets_of(rows)
        }
    return by_score


def influences(rows: pd.DataFrame, score: str, target: str) -> list[Influence]:
    """Every row's residual, leverage and Cook's distance in the regression of target on score, the greatest first.

    References
    ----------
    Cook (1977), Detection of influential observations in linear regression.
    """
    rows = succeeded(rows)
    x, y = values(rows, score), values(rows, target)
    known = np.isfinite(x) & np.isfinite(y)
    if why_undefined(x[known], y[known]):
        return []
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        design = np.column_stack([np.ones(known.sum()), x[known]])
        fit = OLS(y[known], design).fit()
        influence = OLSInfluence(fit)
        cooks = np.nan_to_num(influence.cooks_distance[0], nan=0.0, posinf=np.finfo(float).max)
        leverage = influence.hat_matrix_diag
    named = names(rows[known])
    return [
        Influence(
            **named[i],
            fitted=float(fit.fittedvalues[i]),
            residual=float(fit.resid[i]),
            leverage=float(leverage[i]),
            cooks_distance=float(cooks[i]),
        )
        for i in np.argsort(-cooks, kind="stable")
    ]


def multiple(rows: pd.DataFrame, target: str, predictors: Sequence[str] = MULTIPLE) -> Multiple:
    """Accuracy on several scores at once, each in its standard deviations, with errors clustered by family.

    While the variance inflation factor of any predictor exceeds ``GREATEST_INFLATION``, the last named of those that
    exceed it is left out, and the factors are computed anew.
    """
    rows = succeeded(rows)
    columns = {name: values(rows, name) for name in predictors}
    columns = {name: x for name, x in columns.items() if np.isfinite(x).any()}
    y = values(rows, target)
    known = (
        np.isfinite(y) & np.all([np.isfinite(x) for x in columns.values()], axis=0)
        if columns
        else y != y
    )
    columns = {name: x[known] for name, x in columns.items()}
    varying = {
        n: x
        for n, x in columns.items()
        if len(x) and np.ptp(x) > max(MIN_RANGE, 1e-12 * np.abs(x).max())
    }
    why = {
        name: "constant" if name in columns else "unknown"
        for name in predictors
        if name not in varying
    }
    n, families = int(known.sum()), families_of(rows)[1].to_numpy(dtype=object)[known]
    group = pd.factorize(families)[0]
    undefined = Multiple(n, left_out=tuple(why), why=why)
    if n < len(varying) + 2 + MIN_UNITS:
        return replace(
            undefined, reason=f"{n} rows have all values, too few for {len(varying)} predictors"
        )
    if not varying:
        return replace(undefined, reason="no predictor varies")
    if group.max() + 1 < MIN_UNITS:
        return replace(undefined, reason=f"{group.max() + 1} families, fewer than {MIN_UNITS}")
    kept, inflation, collinear = _without_collinear(varying)
    why |= collinear
    left_out = tuple(name for name in predictors if name in why)
    design = np.column_stack([np.ones(n), *((x - x.mean()) / x.std(ddof=1) for x in kept.values())])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = OLS(y[known], design).fit()
        errors = clustered_errors(design, y[known], group)
    if not np.isfinite([errors.low, errors.high, errors.p]).all():
        return Multiple(
            n, left_out=left_out, reason="one family alone fixes a coefficient", why=why
        )
    coefficients = [
        Coefficient(
            name,
            float(fit.params[i]),
            (float(errors.low[i]), float(errors.high[i])),
            float(errors.p[i]),
            inflation[name],
        )
        for i, name in enumerate(kept, start=1)
    ]
    return Multiple(n, tuple(coefficients), float(fit.rsquared), left_out, why=why)


def _without_collinear(
    columns: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, str]]:
    """The predictors that stay, their variance inflation factors, and why each of the others goes."""
    kept = dict(columns)
    why: dict[str, str] = {}
    while True:
        inflation = variance_inflation(kept)
        above = [name for name, factor in inflation.items() if factor > GREATEST_INFLATION]
        if not above:
            return kept, inflation, why
        factor = inflation[above[-1]]
        size = f"{factor:,.0f}" if factor < 1e6 else "beyond a million"
        why[above[-1]] = f"variance inflation {size}"
        del kept[above[-1]]


def variance_inflation(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How many times each predictor's relation to the others multiplies the variance of its coefficient: 1 / (1 - R2).

    References
    ----------
    Marquardt (1970), Generalized inverses, ridge regression, biased linear estimation, and nonlinear estimation.
    """
    if len(columns) < 2:
        return dict.fromkeys(columns, 1.0)
    standardised = [(x - x.mean()) / x.std() for x in columns.values()]
    design = np.column_stack([np.ones(len(standardised[0])), *standardised])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        factors = [float(variance_inflation_factor(design, i)) for i in range(1, design.shape[1])]
    return dict(zip(columns, factors, strict=True))


def mixed(rows: pd.DataFrame, score: str, target: str) -> Mixed:
    """Accuracy on a score with a random intercept for each family, by restricted maximum likelihood.

    References
    ----------
    Laird and Ware (1982); ``statsmodels.regression.mixed_linear_model.MixedLM``.
    """
    rows = succeeded(rows)
    x, y = values(rows, score), values(rows, target)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    group = pd.factorize(families_of(rows)[1].to_numpy(dtype=object)[known])[0]
    n, families = len(x), int(group.max(initial=-1)) + 1
    reason = why_undefined(x, y)
    if reason is None and not MIN_UNITS <= families < n:
        reason = f"{families} families in {n} rows"
    if reason:
        return Mixed(n, families, reason=reason)
    scaled = (x - x.mean()) / x.std()  # the optimiser wants numbers of one order
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            design = np.column_stack([np.ones(n), scaled])
            fit = MixedLM(y, design, groups=group).fit(reml=True)
            slope, error, p = (
                float(np.asarray(v)[1]) for v in (fit.fe_params, fit.bse_fe, fit.pvalues)
            )
            between, within = float(np.asarray(fit.cov_re)[0, 0]), float(fit.scale)
        except (np.linalg.LinAlgError, ValueError) as problem:
            return Mixed(n, families, reason=f"it cannot be fitted ({problem})")
    if not fit.converged or not np.isfinite([slope, error, p, between, within]).all():
        return Mixed(n, families, reason="it does not converge")
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * error
    unit = float(x.std())
    return Mixed(
        n,
        families,
        slope / unit,
        ((slope - half) / unit, (slope + half) / unit),
        p,
        between / (between + within),
    )


def _clustered(x: np.ndarray, y: np.ndarray, families: np.ndarray) -> dict[str, Any]:
    """The slope's errors clustered by family, as fields of `Regression`; nothing where they cannot be estimated."""
    group = pd.factorize(families)[0]
    if int(group.max()) + 1 < MIN_UNITS:
        return {}
    with np.errstate(all="ignore"):
        unit = x.std()
        standardised = (x - x.mean()) / unit
        if not np.isfinite(standardised).all():
            return {}
        errors = clustered_errors(np.column_stack([np.ones_like(x), standardised]), y, group)
        error, low, high, p = (
            float(v[1])
            for v in (errors.error / unit, errors.low / unit, errors.high / unit, errors.p)
        )
    if not np.isfinite([low, high, error, p]).all():
        return {}
    return {"error_families": error, "p_families": p, "ci_families": (low, high)}
