"""Regressions of accuracy on scores, with errors for unequal variances and for families, and their diagnostics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from .bootstrap import LEVEL, middle_error, quietly, small_sample
from .correlation import MIN_RANGE, MIN_UNITS, Array, Bootstraps, Families, why_undefined
from .sample import families_of, names, scores_of, succeeded, targets_of, values

Correction = Literal["CR2", "CR3"]
# A cluster that has all but this share of a direction of the design fixes it alone, with residuals of 0.
ALONE = 1e-8


@dataclass(frozen=True)
class ClusteredErrors:
    """Standard error, Satterthwaite's degrees of freedom, p and 95% interval of each coefficient [k].

    NaN where one cluster alone fixes the coefficient, or no residual is left.
    """

    error: Array
    degrees: Array
    p: Array
    low: Array
    high: Array


def clustered_errors(
    design: Array, y: Array, cluster: Array, kind: Correction = "CR3"
) -> ClusteredErrors:
    r"""Compute clustered errors of ordinary least squares, with Satterthwaite's degrees of freedom.

    With the hat matrix H and the residuals e, cluster g's residuals become :math:`A_g e_g`, where
    :math:`A_g = (I - H_{gg})^{-1/2}` for CR2, and :math:`A_g = (I - H_{gg})^{-1} \sqrt{(G - 1) / G}` for CR3, which is
    the jackknife over clusters. For the coefficient c'b, the degrees of freedom are
    :math:`(\sum_g p_g'p_g)^2 / \sum_{g,h} (p_g'p_h)^2`, :math:`p_g = (I - H)_{\cdot g} A_g X_g (X'X)^{-1} c`.

    Parameters
    ----------
    design
        The predictors, with their constant, [n, k], of full rank.
    y
        The outcome, [n].
    cluster
        Each row's cluster, numbers from 0, [n].
    kind
        The correction of the residuals for leverage.

    References
    ----------
    Bell and McCaffrey (2002), Bias reduction in standard errors for linear regression with multi-stage samples.
    Pustejovsky and Tipton (2018), Small-sample methods for cluster-robust variance estimation and hypothesis testing
    in fixed effects models. Hansen (2025), Jackknife standard errors for clustered regression.
    """
    # In an orthonormal basis Q of the design H_gg = Q_g Q_g', and (I - Q_g Q_g')^a Q_g = Q_g (I - Q_g'Q_g)^a:
    # so only k x k matrices are decomposed, however large the clusters are.
    basis, triangle = np.linalg.qr(design)
    coordinates = basis.T @ y
    coefficients = np.linalg.solve(triangle, coordinates)
    # [k, contrast]: a coefficient is its contrast times the coordinates.
    contrasts = np.linalg.inv(triangle).T
    residual = y - basis @ coordinates
    leverage = _summed(basis[:, :, None] * basis[:, None, :], cluster)
    scores = _summed(basis * residual[:, None], cluster)
    corrected = _corrected(leverage, contrasts, kind)
    variance = (np.einsum("gkc,gk->gc", corrected, scores) ** 2).sum(axis=0)
    degrees = _degrees_of_freedom(leverage, corrected)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(variance > 0, np.sqrt(variance), np.nan)
        p = 2 * stats.t.sf(np.abs(coefficients) / error, degrees)
        half = stats.t.ppf(0.5 + LEVEL / 2, degrees) * error
    return ClusteredErrors(error, degrees, p, coefficients - half, coefficients + half)


def _summed(rows: Array, cluster: Array) -> Array:
    """Return sums of rows [n, ...] over each cluster: [g, ...]."""
    total = np.zeros((int(cluster.max()) + 1, *rows.shape[1:]))
    np.add.at(total, cluster, rows)
    return total


def _corrected(leverage: Array, contrasts: Array, kind: Correction) -> Array:
    """Return each cluster's correction times each contrast, [g, k, contrast]; NaN if one cluster alone fixes it."""
    clusters, predictors = leverage.shape[:2]
    eigenvalues, vectors = np.linalg.eigh(np.eye(predictors) - leverage)
    alone = eigenvalues <= ALONE
    kept = np.where(alone, 1, eigenvalues)
    power = 1 / np.sqrt(kept) if kind == "CR2" else np.sqrt((clusters - 1) / clusters) / kept
    along = vectors.transpose(0, 2, 1) @ contrasts
    share = np.abs(along) / np.linalg.norm(contrasts, axis=0)
    fixed = (alone[:, :, None] & (share > ALONE)).any(axis=(0, 1))
    return np.asarray(np.where(fixed, np.nan, vectors @ (power[:, :, None] * along)))


def _degrees_of_freedom(leverage: Array, corrected: Array) -> Array:
    """Return Satterthwaite's degrees of freedom of each contrast: [contrast]."""
    degrees = []
    for contrast in corrected.transpose(2, 0, 1):
        projected = np.einsum("gkl,gl->gk", leverage, contrast)
        products = np.diag((contrast * projected).sum(axis=1)) - projected @ projected.T  # p_g'p_h
        squares = float((products**2).sum())
        degrees.append(np.trace(products) ** 2 / squares if squares > 0 else np.nan)
    return np.array(degrees)


MULTIPLE = ("dsmi_z_y", "dsmi_z_x", "dse_z", "log10_params", "img_size")
GREATEST_INFLATION = 10.0
SHOWN = 5  # most influential rows


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
class Predictor:
    """A predictor of a multiple regression: percentage points of accuracy per standard deviation.

    ``inflation`` is its variance inflation factor.
    """

    name: str
    value: float
    ci: tuple[float, float]
    p: float
    inflation: float


@dataclass(frozen=True)
class Multiple:
    """A multiple regression with errors clustered by family; ``why`` gives the reason for each predictor left out."""

    n: int
    coefficients: tuple[Predictor, ...] = ()
    r2: float | None = None
    left_out: tuple[str, ...] = ()
    reason: str | None = None
    why: Mapping[str, str] = field(default_factory=dict)


def _ols(y: Array, design: Array) -> Any:
    """Return statsmodels' model, imported here because the page of a few models fits none."""
    from statsmodels.regression.linear_model import OLS

    return OLS(y, design)


def ols(x: Array, y: Array, families: Families | None = None) -> Regression:
    """Fit y = intercept + slope x by least squares.

    Parameters
    ----------
    x, y
        Numbers [n]; pairs with a NaN are left out.
    families
        Each row's family [n], for the clustered errors.

    References
    ----------
    MacKinnon and White (1985), estimator HC3; clustered errors,
    see `dsmi_zoo.reports.statistics.regression`; ``statsmodels.regression.linear_model.OLS``.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    reason = why_undefined(x, y)
    if reason:
        return Regression(len(x), reason=reason)
    with quietly():
        fit = _ols(y, np.column_stack([np.ones_like(x), x])).fit(cov_type="HC3", use_t=True)
        low, high = (float(limit) for limit in fit.conf_int(alpha=1 - LEVEL)[1])
        (a, b), (c, d) = np.asarray(fit.cov_params()).tolist()
        squares = (x - x.mean()) ** 2
        leverage = 1 / len(x) + squares.max() / squares.sum()
        intercept, slope, r2 = float(fit.params[0]), float(fit.params[1]), float(fit.rsquared)
        error, p = float(fit.bse[1]), float(fit.pvalues[1])
    if not np.isfinite([intercept, slope, r2]).all():
        return Regression(len(x), reason="the numbers are too large or too small")
    is_defined = np.isfinite([a, b, c, d, low, high, error, p]).all()
    # HC3 divides by one minus the leverage: at a leverage of 1 the result would be rounding error.
    if leverage > 1 - MIN_RANGE or not is_defined:
        why = "no error: one row alone fixes the slope"
        return Regression(len(x), intercept, slope, r2=r2, reason=why)
    clustered: dict[str, Any] = {}
    if families is not None:
        clustered = _clustered(x, y, np.asarray(families, dtype=object)[known])
    covariance = (a, b), (c, d)
    return Regression(len(x), intercept, slope, error, p, (low, high), r2, covariance, **clustered)


def _clustered(x: Array, y: Array, families: Array) -> dict[str, Any]:
    """Return the slope's errors clustered by family, as fields of `Regression`; none if they cannot be estimated."""
    group = pd.factorize(families)[0]
    if int(group.max()) + 1 < MIN_UNITS:
        return {}
    with np.errstate(all="ignore"):
        unit = x.std()
        standardised = (x - x.mean()) / unit
        if not np.isfinite(standardised).all():
            return {}
        errors = clustered_errors(np.column_stack([np.ones_like(x), standardised]), y, group)
        error, low, high = (float(v[1] / unit) for v in (errors.error, errors.low, errors.high))
    p = float(errors.p[1])
    if not np.isfinite([low, high, error, p]).all():
        return {}
    return {"error_families": error, "p_families": p, "ci_families": (low, high)}


def family_band(
    x: Array, y: Array, families: Families, at: Array, drawn_by: Bootstraps
) -> tuple[Array, Array] | None:
    """Return the 95% band of the least-squares line at the places ``at`` [k], from resamples of families.

    At each place the error is half the width of the middle 68% of the resampled lines, with the correction of
    `dsmi_zoo.reports.statistics.bootstrap.small_sample`. None with too few families, or if x hardly varies.

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
    columns = (np.ones_like(x), x, y, x * x, x * y)
    sums = np.column_stack([np.bincount(unit, column) for column in columns])
    n, sx, sy, sxx, sxy = (drawn_by.of(unit).counts @ sums).T
    spread = sxx - sx * sx / n
    spread = np.where(spread > MIN_RANGE * n, spread, np.nan)
    if np.isnan(spread).mean() > 0.5:
        return None
    slope = (sxy - sx * sy / n) / spread
    lines = (sy / n - slope * sx / n)[:, None] + slope[:, None] * at
    own_slope = float(x @ y) / len(x)
    residual = y - own_slope * x
    half = []
    for i, place in enumerate(at):
        small = small_sample(unit, residual * (1 + x * place))
        half.append(small.half_width(middle_error(lines[:, i])))
    line = height + own_slope * at
    return line - half, line + half


def regressions(rows: pd.DataFrame) -> dict[str, dict[str, Regression]]:
    """Return the regression of every target on every score over the measured rows."""
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
    """Return every row's residual, leverage and Cook's distance in the regression of target on score, largest first.

    References
    ----------
    Cook (1977), Detection of influential observations in linear regression.
    """
    rows = succeeded(rows)
    x, y = values(rows, score), values(rows, target)
    known = np.isfinite(x) & np.isfinite(y)
    if why_undefined(x[known], y[known]):
        return []
    with quietly():
        fit = _ols(y[known], np.column_stack([np.ones(known.sum()), x[known]])).fit()
        influence = fit.get_influence()
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
    """Regress accuracy on several standardised scores at once, with errors clustered by family.

    While the variance inflation factor of any predictor exceeds ``GREATEST_INFLATION``, the last one above it is left
    out, and the factors are recomputed.
    """
    rows = succeeded(rows)
    y = values(rows, target)
    known = np.isfinite(y)
    columns = {}
    for name in predictors:
        x = values(rows, name)
        if np.isfinite(x).any():
            columns[name] = x
            known &= np.isfinite(x)
    if not columns:
        known[:] = False
    varying = {}
    why = {}
    for name in predictors:
        x = columns[name][known] if name in columns else np.array([])
        if len(x) and np.ptp(x) > max(MIN_RANGE, 1e-12 * np.abs(x).max()):
            varying[name] = x
        else:
            why[name] = "constant" if name in columns else "unknown"
    n = int(known.sum())
    group = pd.factorize(families_of(rows)[1].to_numpy(dtype=object)[known])[0]
    families = int(group.max(initial=-1)) + 1
    reason = None
    if n < len(varying) + 2 + MIN_UNITS:
        reason = f"{n} rows have all values, too few for {len(varying)} predictors"
    elif not varying:
        reason = "no predictor varies"
    elif families < MIN_UNITS:
        reason = f"{families} families, fewer than {MIN_UNITS}"
    if reason:
        return Multiple(n, left_out=tuple(why), reason=reason, why=why)
    kept, inflation, collinear = _without_collinear(varying)
    why |= collinear
    left_out = tuple(name for name in predictors if name in why)
    found = Multiple(n, left_out=left_out, why=why)
    design = np.column_stack([np.ones(n), *((x - x.mean()) / x.std(ddof=1) for x in kept.values())])
    with quietly():
        fit = _ols(y[known], design).fit()
        r2 = float(fit.rsquared)
        errors = clustered_errors(design, y[known], group)
    if not np.isfinite([errors.low, errors.high, errors.p]).all():
        return replace(found, reason="one family alone fixes a coefficient")
    coefficients = []
    for i, name in enumerate(kept, start=1):
        ci = float(errors.low[i]), float(errors.high[i])
        value, p = float(fit.params[i]), float(errors.p[i])
        coefficients.append(Predictor(name, value, ci, p, inflation[name]))
    return replace(found, coefficients=tuple(coefficients), r2=r2)


def _without_collinear(
    columns: Mapping[str, Array],
) -> tuple[dict[str, Array], dict[str, float], dict[str, str]]:
    """Return the predictors that stay, their variance inflation factors, and the reasons for leaving out the others."""
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


def variance_inflation(columns: Mapping[str, Array]) -> dict[str, float]:
    """Return the factor, 1 / (1 - R2), by which collinearity with the others inflates each coefficient's variance.

    References
    ----------
    Marquardt (1970), Generalized inverses, ridge regression, biased linear estimation, and nonlinear estimation.
    """
    if len(columns) < 2:
        return dict.fromkeys(columns, 1.0)
    from statsmodels.stats.outliers_influence import variance_inflation_factor

    standardised = [(x - x.mean()) / x.std() for x in columns.values()]
    design = np.column_stack([np.ones(len(standardised[0])), *standardised])
    with quietly():
        factors = [float(variance_inflation_factor(design, i)) for i in range(1, design.shape[1])]
    return dict(zip(columns, factors, strict=True))
