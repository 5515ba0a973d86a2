"""How well measures predict accuracy: pure functions from the rows of a run to numbers.

What is undefined is None, with a reason; nothing here warns, prints or reads a file.
"""

import re
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS

from pipeline.measures.registry import COMPARISONS, MEASURES
from pipeline.schema import COLUMN_NAMES, is_accuracy
from reports import resampling

LEVEL = 0.95
RESAMPLES = 2000
# Weighted Kendall is computed resample by resample, so it gets fewer.
WEIGHTED_KENDALL_RESAMPLES = 300
MIN_ROWS = 3
# Resampling fewer units mostly repeats the data, and its percentiles say nothing.
MIN_UNITS = 5
# A column that moves less than this is constant up to rounding.
MIN_RANGE = 1e-9
COEFFICIENTS = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "kendall": "Kendall",
    "weighted_kendall": "weighted Kendall",
}
PRIMARY_MEASURE = "dsmi_z_y"
PRIMARY_TARGET = "top1"


@dataclass(frozen=True)
class Estimate:
    """A coefficient, its two-sided p value (independent rows assumed) and its bootstrap interval (units resampled)."""

    value: float | None = None
    p: float | None = None
    ci: tuple[float, float] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Correlation:
    """Four coefficients of one measure and one target over n rows, which come from ``units`` independent units."""

    n: int
    units: int
    pearson: Estimate
    spearman: Estimate
    kendall: Estimate
    weighted_kendall: Estimate


@dataclass(frozen=True)
class Regression:
    """Least squares of y on x; standard error, p, interval and covariance of (intercept, slope) are HC3."""

    n: int
    intercept: float | None = None
    slope: float | None = None
    standard_error: float | None = None
    p: float | None = None
    ci: tuple[float, float] | None = None
    r2: float | None = None
    covariance: tuple[tuple[float, float], tuple[float, float]] | None = None
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


def succeeded(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose entry was measured."""
    return rows[rows["status"].eq("ok").fillna(False).astype(bool)]


def values(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column as float64 [n]; what is missing, infinite or no number is NaN."""
    if column not in rows:
        return np.full(len(rows), np.nan)
    numbers = pd.to_numeric(rows[column], errors="coerce").astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def measures_of(rows: pd.DataFrame) -> list[str]:
    """Columns of measures with at least one value in a measured row: the registry's first, then the user's own."""
    rows = succeeded(rows)
    lists = _texts(rows, "own_measures")
    own = sorted({name for text in lists if text for name in text.split()} - COLUMN_NAMES)
    return [
        name for name in (*(m.name for m in (*MEASURES, *COMPARISONS)), *own) if np.isfinite(values(rows, name)).any()
    ]


def targets_of(rows: pd.DataFrame) -> list[str]:
    """Columns of accuracies with at least one value in a measured row, top-1 and top-5 first."""
    rows = succeeded(rows)
    names = sorted((str(c) for c in rows.columns if is_accuracy(str(c))), key=lambda c: (c != "top1", c != "top5", c))
    return [name for name in names if np.isfinite(values(rows, name)).any()]


def resampling_unit(rows: pd.DataFrame) -> tuple[str, pd.Series]:
    """What rows share that makes them dependent: the column's name, and each row's unit.

    Models of one architecture at several budgets or sizes are not independent, so architectures are resampled; a row
    without one stands for itself.
    """
    models = rows["model"].astype(object)
    if "architecture" not in rows:
        return "model", models
    return "architecture", rows["architecture"].astype(object).where(rows["architecture"].notna(), models)


def groups_of(rows: pd.DataFrame) -> list[str]:
    """The names of the groups among measured rows, numbers in them ordered as numbers; fewer than two are none."""
    rows = succeeded(rows)
    names = {str(g) for g in rows["group"].dropna() if str(g).strip()} if "group" in rows else set()
    key = {name: [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name)] for name in names}
    return sorted(names, key=key.__getitem__) if len(names) > 1 else []


def correlate(
    x: np.ndarray,
    y: np.ndarray,
    families: Sequence[Hashable] | np.ndarray | pd.Series,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    weighted_kendall_resamples: int = WEIGHTED_KENDALL_RESAMPLES,
) -> Correlation:
    """Four correlation coefficients with percentile intervals from a bootstrap over families.

    Parameters
    ----------
    x, y
        Numbers [n]; pairs with a NaN are left out.
    families
        Each row's family [n]: rows of one family are drawn together.
    seed, resamples, weighted_kendall_resamples
        Of the bootstrap; one and the same resamples serve every pair with the same families.

    Returns
    -------
    Correlation
        Fewer than three pairs, or a constant x or y, give None and a reason.

    References
    ----------
    Field and Welsh (2007), Bootstrapping clustered data. Vigna (2015), A weighted correlation index for rankings
    with ties.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    unit = pd.factorize(np.asarray(families, dtype=object)[known])[0]
    n, units = len(x), int(unit.max(initial=-1)) + 1
    reason = _why_undefined(x, y)
    if reason:
        return Correlation(n, units, *[Estimate(reason=reason)] * 4)
    # Squares of huge numbers overflow; a power of two changes no digit, and no coefficient sees it.
    x, y = (np.ldexp(v, -np.frexp(np.abs(v).max())[1]) for v in (x, y))
    counts = resampling.draw(units, resamples, seed)
    few = counts[:weighted_kendall_resamples]

    def estimate(result: Any, resampled: Callable[..., np.ndarray], counts: np.ndarray) -> Estimate:
        few_units = f"no interval: {units} independent units, fewer than {MIN_UNITS}"
        ci, why = _interval(resampled(x, y, counts, unit)) if units >= MIN_UNITS else (None, few_units)
        return Estimate(_finite(result.statistic), _finite(result.pvalue), ci, why)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Correlation(
            n,
            units,
            estimate(stats.pearsonr(x, y), resampling.pearson, counts),
            estimate(stats.spearmanr(x, y), resampling.spearman, counts),
            estimate(stats.kendalltau(x, y), resampling.kendall, counts),
            estimate(stats.weightedtau(x, y), resampling.weighted_kendall, few),
        )


def ols(x: np.ndarray, y: np.ndarray) -> Regression:
    """Least squares y = intercept + slope x, with errors that allow unequal variances (HC3) and t quantiles.

    Parameters
    ----------
    x, y
        Numbers [n]; pairs with a NaN are left out.

    References
    ----------
    MacKinnon and White (1985), estimator HC3; ``statsmodels.regression.linear_model.OLS``.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    reason = _why_undefined(x, y)
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
    # HC3 divides by one less the leverage: at a leverage of 1 it would show nothing but rounding.
    if leverage > 1 - MIN_RANGE or not np.isfinite([*covariance.ravel(), low, high, error, p]).all():
        return Regression(len(x), intercept, slope, r2=r2, reason="no error: one row alone fixes the slope")
    (a, b), (c, d) = covariance.tolist()
    return Regression(len(x), intercept, slope, error, p, (low, high), r2, ((a, b), (c, d)))


def correlations(rows: pd.DataFrame, *, seed: int = 0) -> dict[str, dict[str, Correlation]]:
    """Every measure against every target over the measured rows."""
    rows = succeeded(rows)
    families = resampling_unit(rows)[1]
    return {
        m: {t: correlate(values(rows, m), values(rows, t), families, seed=seed) for t in targets_of(rows)}
        for m in measures_of(rows)
    }


def correlations_within_groups(rows: pd.DataFrame, *, seed: int = 0) -> dict[str, dict[str, dict[str, Correlation]]]:
    """The same among the rows of each group; empty without groups."""
    rows = succeeded(rows)
    return {g: correlations(rows[rows["group"].eq(g).fillna(False)], seed=seed) for g in groups_of(rows)}


def regressions(rows: pd.DataFrame) -> dict[str, dict[str, Regression]]:
    """The regression of every target on every measure over the measured rows."""
    rows = succeeded(rows)
    return {m: {t: ols(values(rows, m), values(rows, t)) for t in targets_of(rows)} for m in measures_of(rows)}


def missing_entries(rows: pd.DataFrame, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The run's entries without a row, each {"model", "img_size"}."""
    there = {(e["model"], e["img_size"]) for e in _names(rows)}
    planned = [{"model": str(e.get("model")), "img_size": e.get("img_size")} for e in run.get("entries") or []]
    return [e for e in planned if (e["model"], e["img_size"]) not in there]


@dataclass(frozen=True)
class Summary:
    """All results of a report; ``as_json`` is the content of ``summary.json``."""

    models: dict[str, int]
    primary: tuple[str, str] | None
    unit: str
    units: int
    correlations: dict[str, dict[str, Correlation]]
    within_groups: dict[str, dict[str, dict[str, Correlation]]]
    regression: dict[str, dict[str, Regression]]
    saturated: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    missing: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Plain values without NaN; ``models`` and ``correlations`` are a contract that other programs read."""
        content = asdict(self)
        content["primary"] = dict(zip(("measure", "target"), self.primary, strict=True)) if self.primary else None
        content["resampling"] = {
            "unit": content.pop("unit"),
            "units": content.pop("units"),
            "level": LEVEL,
            "resamples": RESAMPLES,
            "weighted_kendall_resamples": WEIGHTED_KENDALL_RESAMPLES,
        }
        return content


def summarise(rows: pd.DataFrame, run: Mapping[str, Any]) -> Summary:
    """Everything that the report says in numbers.

    Parameters
    ----------
    rows
        One row an entry, with the columns of ``pipeline.schema``.
    run
        The content of ``run.json``; only ``entries`` is read here, and may be missing.
    """
    ok = succeeded(rows)
    failed = rows[~rows.index.isin(ok.index)]
    missing = missing_entries(rows, run)
    pooled = correlations(ok)
    targets = targets_of(ok)
    target = PRIMARY_TARGET if PRIMARY_TARGET in targets else next(iter(targets), None)
    unit, units = resampling_unit(ok)
    saturated = ok[ok["saturated"].eq(True).fillna(False).astype(bool)] if "saturated" in ok else ok.iloc[:0]
    return Summary(
        models={"total": len(rows) + len(missing), "ok": len(ok), "failed": len(failed), "missing": len(missing)},
        primary=(PRIMARY_MEASURE, target) if target and PRIMARY_MEASURE in pooled else None,
        unit=unit,
        units=int(units.nunique()),
        correlations=pooled,
        within_groups=correlations_within_groups(ok),
        regression=regressions(ok),
        saturated=_names(saturated),
        failures=[
            {**name, "error_type": kind, "error_message": message}
            for name, kind, message in zip(
                _names(failed), _texts(failed, "error_type"), _texts(failed, "error_message"), strict=True
            )
        ],
        missing=missing,
    )


def _why_undefined(x: np.ndarray, y: np.ndarray) -> str | None:
    if len(x) < MIN_ROWS:
        return f"{len(x)} rows have both values, fewer than {MIN_ROWS}"
    for numbers, what in ((x, "measure"), (y, "accuracy")):
        # The relative limit is where float64 keeps no digit of the spread.
        if np.ptp(numbers) <= max(MIN_RANGE, 1e-12 * np.abs(numbers).max()):
            return f"the {what} is constant"
    return None


def _interval(resampled: np.ndarray) -> tuple[tuple[float, float] | None, str | None]:
    defined = resampled[np.isfinite(resampled)]
    if len(defined) < len(resampled) / 2:
        return None, "no interval: undefined in most resamples"
    low, high = np.quantile(defined, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return (float(low), float(high)), None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _names(rows: pd.DataFrame) -> list[dict[str, Any]]:
    sizes = values(rows, "img_size")
    return [
        {"model": str(model), "img_size": int(size) if np.isfinite(size) else None}
        for model, size in zip(rows["model"], sizes, strict=True)
    ]


def _texts(rows: pd.DataFrame, column: str) -> list[str | None]:
    return [None if pd.isna(v) else str(v) for v in rows[column]] if column in rows else [None] * len(rows)
