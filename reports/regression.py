"""Regressions of accuracy on scores, with errors for unequal variances and for families, and their diagnostics."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.outliers_influence import OLSInfluence

from .clustered import clustered_errors
from .correlation import MIN_RANGE, MIN_UNITS, Bootstraps, Correlation, correlate, why_undefined
from .intervals import LEVEL
from .sample import families_of, names, scores_of, succeeded, targets_of, values

MULTIPLE = ("dsmi_z_y", "dsmi_z_x", "dse_z", "log10_params", "img_size")
SHOWN = 5  # rows of the greatest influence
CONTROLS = {
    "log parameters": ("log10_params",),
    "log embedding scale and dimension": ("log10_rms", "log10_dim"),
}


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

    def band(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The line at x [m] and the lower and upper limits of its mean at level 0.95; None when it is undefined."""
        if self.intercept is None or self.slope is None or self.covariance is None:
            return None
        design = np.column_stack([np.ones_like(x), x])
        line = design @ [self.intercept, self.slope]
        error = np.sqrt(np.clip(np.einsum("mi,ij,mj->m", design, np.array(self.covariance), design), 0, None))
        half = stats.t.ppf(0.5 + LEVEL / 2, self.n - 2) * error
        return line, line - half, line + half


@dataclass(frozen=True)
class Influence:
    """One row's part in a regression: residual in percent points, leverage, Cook's distance."""

    model: str
    img_size: int | None
    fitted: float
    residual: float
    leverage: float
    cooks_distance: float


@dataclass(frozen=True)
class Coefficient:
    """A predictor of a multiple regression: percent points of accuracy for one standard deviation of it."""

    name: str
    value: float
    ci: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Multiple:
    """A multiple regression with errors clustered by family; predictors that are constant are left out by name."""

    n: int
    coefficients: tuple[Coefficient, ...] = ()
    r2: float | None = None
    left_out: tuple[str, ...] = ()
    reason: str | None = None


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


def ols(x: np.ndarray, y: np.ndarray, families: Sequence[Any] | np.ndarray | pd.Series | None = None) -> Regression:
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
    see `dsmi_zoo.reports.clustered`; ``statsmodels.regression.linear_model.OLS``.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    reason = why_undefined(x, y)
    if reason:
        return Regression(len(x), reason=reason)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = OLS(y, np.column_stack([np.ones_like(x), x])).fit(cov_type="HC3", use_t=True)
        low, high = (float(limit) for limit in fit.conf_int(alpha=1 - LEVEL)[1])
        covariance = np.asarray(fit.cov_params())
        intercept, slope, r2 = float(fit.params[0]), float(fit.params[1]), float(fit.rsquared)
        error, p = float(fit.bse[1]), float(fit.pvalues[1])
        leverage = 1 / len(x) + ((x - x.mean()) ** 2).max() / ((x - x.mean()) ** 2).sum()
    if not np.isfinite([intercept, slope, r2]).all():
        return Regression(len(x), reason="the numbers are too large or too small")
    clustered = _clustered(x, y, np.asarray(families, dtype=object)[known]) if families is not None else {}
    # HC3 divides by one less the leverage: at a leverage of 1 it would show nothing but rounding.
    if leverage > 1 - MIN_RANGE or not np.isfinite([*covariance.ravel(), low, high, error, p]).all():
        return Regression(len(x), intercept, slope, r2=r2, reason="no error: one row alone fixes the slope")
    (a, b), (c, d) = covariance.tolist()
    return Regression(len(x), intercept, slope, error, p, (low, high), r2, ((a, b), (c, d)), **clustered)


def regressions(rows: pd.DataFrame) -> dict[str, dict[str, Regression]]:
    """The regression of every target on every score over the measured rows."""
    rows = succeeded(rows)
    families = families_of(rows)[1]
    return {m: {t: ols(values(rows, m), values(rows, t), families) for t in targets_of(rows)} for m in scores_of(rows)}


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
        fit = OLS(y[known], np.column_stack([np.ones(known.sum()), x[known]])).fit()
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
    """Accuracy on several scores at once, each in its standard deviations, with errors clustered by family."""
    rows = succeeded(rows)
    columns = {name: values(rows, name) for name in predictors}
    columns = {name: x for name, x in columns.items() if np.isfinite(x).any()}
    y = values(rows, target)
    known = np.isfinite(y) & np.all([np.isfinite(x) for x in columns.values()], axis=0) if columns else y != y
    columns = {name: x[known] for name, x in columns.items()}
    varying = {n: x for n, x in columns.items() if len(x) and np.ptp(x) > max(MIN_RANGE, 1e-12 * np.abs(x).max())}
    left_out = tuple(name for name in predictors if name not in varying)
    n, families = int(known.sum()), families_of(rows)[1].to_numpy(dtype=object)[known]
    group = pd.factorize(families)[0]
    if n < len(varying) + 2 + MIN_UNITS:
        return Multiple(n, left_out=left_out, reason=f"{n} rows have all values, too few for {len(varying)} predictors")
    if not varying:
        return Multiple(n, left_out=left_out, reason="no predictor varies")
    if group.max() + 1 < MIN_UNITS:
        return Multiple(n, left_out=left_out, reason=f"{group.max() + 1} families, fewer than {MIN_UNITS}")
    design = np.column_stack([np.ones(n), *((x - x.mean()) / x.std(ddof=1) for x in varying.values())])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return Multiple(n, left_out=left_out, reason="the predictors depend on each other")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = OLS(y[known], design).fit()
        errors = clustered_errors(design, y[known], group)
    if not np.isfinite([errors.low, errors.high, errors.p]).all():
        return Multiple(n, left_out=left_out, reason="one family alone fixes a coefficient")
    return Multiple(
        n,
        tuple(
            Coefficient(name, float(fit.params[i]), (float(errors.low[i]), float(errors.high[i])), float(errors.p[i]))
            for i, name in enumerate(varying, start=1)
        ),
        float(fit.rsquared),
        left_out,
    )


def partial_correlations(
    rows: pd.DataFrame, target: str, bootstraps: Bootstraps
) -> dict[str, dict[str, Correlation | str]]:
    """Correlations of what is left of each score and the target after linear regression on controls.

    Returns
    -------
    dict
        By the controls' name, by score; a text says why there is none. The families' interval holds the regressions
        on the controls fixed.
    """
    rows = succeeded(rows)
    families = families_of(rows)[1].to_numpy(dtype=object)
    y = values(rows, target)
    found: dict[str, dict[str, Correlation | str]] = {}
    for title, controls in CONTROLS.items():
        given = np.column_stack([_control(rows, name) for name in controls])
        found[title] = {}
        for score in scores_of(rows):
            if score in controls:
                continue
            x = values(rows, score)
            known = np.isfinite(x) & np.isfinite(y) & np.isfinite(given).all(axis=1)
            if known.sum() < given.shape[1] + MIN_UNITS:
                found[title][score] = f"{known.sum()} rows have all values"
                continue
            reason = why_undefined(x[known], y[known])
            if reason:
                found[title][score] = reason
                continue
            design = np.column_stack([np.ones(known.sum()), given[known]])
            left_x, left_y = (v[known] - design @ np.linalg.lstsq(design, v[known], rcond=None)[0] for v in (x, y))
            found[title][score] = correlate(left_x, left_y, families[known], bootstraps, full=False)
    return found


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
            fit = MixedLM(y, np.column_stack([np.ones(n), scaled]), groups=group).fit(reml=True)
            slope, error, p = (float(np.asarray(v)[1]) for v in (fit.fe_params, fit.bse_fe, fit.pvalues))
            between, within = float(np.asarray(fit.cov_re)[0, 0]), float(fit.scale)
        except (np.linalg.LinAlgError, ValueError) as problem:
            return Mixed(n, families, reason=f"it cannot be fitted ({problem})")
    if not fit.converged or not np.isfinite([slope, error, p, between, within]).all():
        return Mixed(n, families, reason="it does not converge")
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * error
    unit = float(x.std())
    return Mixed(
        n, families, slope / unit, ((slope - half) / unit, (slope + half) / unit), p, between / (between + within)
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
        found = clustered_errors(np.column_stack([np.ones_like(x), standardised]), y, group)
        error, low, high, p = (float(v[1]) for v in (found.error / unit, found.low / unit, found.high / unit, found.p))
    if not np.isfinite([low, high, error, p]).all():
        return {}
    return {"error_families": error, "p_families": p, "ci_families": (low, high)}


def _control(rows: pd.DataFrame, name: str) -> np.ndarray:
    column = {"log10_rms": "embedding_rms", "log10_dim": "embedding_dim"}.get(name)
    if column is None:
        return values(rows, name)
    numbers = values(rows, column)
    return np.log10(numbers, out=np.full(len(rows), np.nan), where=numbers > 0)
