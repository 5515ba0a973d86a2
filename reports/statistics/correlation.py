"""Correlations of scores and accuracies, with intervals that know that relatives are not independent."""

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from . import bootstrap as resampling
from .bootstrap import Precision, influence_on_spearman, interval, precision
from .sample import (
    CEILING,
    PRIMARY_MEASURE,
    PRIMARY_TARGET,
    SAME_EVIDENCE,
    effective_number,
    families_of,
    groups_of,
    scores_of,
    succeeded,
    targets_of,
    values,
)

RESAMPLES = 2000
# Weighted Kendall is computed resample by resample, 6 ms each for a thousand rows.
WEIGHTED_KENDALL_RESAMPLES = 100
MIN_ROWS = 3
# Resampling fewer families mostly repeats the data, and says nothing of others.
MIN_UNITS = 5
# A column that moves less than this is constant up to rounding.
MIN_RANGE = 1e-9


@dataclass(frozen=True)
class Coefficient:
    """A coefficient with its uncertainty.

    ``ci`` and ``p_families`` come from resampling families; ``p`` and ``ci_rows`` assume independent rows.
    ``p_holm`` is ``p_families`` after Holm's correction over all exploratory pairs.
    """

    value: float | None = None
    p: float | None = None
    ci: tuple[float, float] | None = None
    p_families: float | None = None
    ci_rows: tuple[float, float] | None = None
    p_holm: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Correlation:
    """Four coefficients of one score and one target over n rows of so many families; ``effective`` is Kish's number."""

    n: int
    units: int
    effective: float
    pearson: Coefficient
    spearman: Coefficient
    kendall: Coefficient
    weighted_kendall: Coefficient


@dataclass
class Bootstraps:
    """The resamples of each set of rows with the same families, made once."""

    resamples: int = RESAMPLES
    weighted_kendall_resamples: int = WEIGHTED_KENDALL_RESAMPLES
    seed: int = 0
    _made: dict[bytes, resampling.Resamples] = field(default_factory=dict)

    def of(self, unit: np.ndarray) -> resampling.Resamples:
        """The resamples of rows whose units these numbers are, [n]."""
        key = unit.tobytes()
        if key not in self._made:
            # Families and rows of one sample; each holds hundreds of megabytes.
            if len(self._made) >= 2:
                self._made.pop(next(iter(self._made)))
            self._made[key] = resampling.Resamples.drawn(unit, self.resamples, self.seed)
        return self._made[key]


def correlate(
    x: np.ndarray,
    y: np.ndarray,
    families: Sequence[Hashable] | np.ndarray | pd.Series,
    bootstraps: Bootstraps | None = None,
    *,
    full: bool = True,
) -> Correlation:
    """Four correlation coefficients with intervals from a bootstrap over families.

    The interval is symmetric in Fisher's transformation: standard error from the resamples, corrected for few, unequal
    families, Student's t with Satterthwaite's degrees of freedom (`dsmi_zoo.reports.statistics.bootstrap.precision`). Percentiles
    are too short.

    Parameters
    ----------
    x, y
        Numbers [n]; pairs with a NaN are left out.
    families
        Each row's family [n]: rows of one family are drawn together.
    full
        Whether to add the interval over rows, and those of both Kendalls, which take the most time.

    Returns
    -------
    Correlation
        Fewer than three pairs, or a constant x or y, give None and a reason.

    References
    ----------
    Field and Welsh (2007), Bootstrapping clustered data. Vigna (2015), A weighted correlation index for rankings
    with ties. Kish (1965), Survey sampling.
    """
    bootstraps = bootstraps or Bootstraps()
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    unit = pd.factorize(np.asarray(families, dtype=object)[known])[0]
    n, units, effective = len(x), int(unit.max(initial=-1)) + 1, effective_number(unit)
    reason = why_undefined(x, y)
    if reason:
        return Correlation(n, units, effective, *[Coefficient(reason=reason)] * 4)
    # Squares of huge numbers overflow; a power of two changes no digit, and no coefficient sees it.
    x, y = _about_1(x), _about_1(y)
    over_families = bootstraps.of(unit)
    precise = precision(unit, influence_on_spearman(x, y))
    few = resampling.Resamples(unit, over_families.counts[: bootstraps.weighted_kendall_resamples])

    def estimate(result: Any, resampled: Callable[[], np.ndarray] | None) -> Coefficient:
        value, p = _finite(result.statistic), _finite(result.pvalue)
        if units < MIN_UNITS:
            return Coefficient(
                value, p, reason=f"no interval: {units} independent units, fewer than {MIN_UNITS}"
            )
        if resampled is None:
            return Coefficient(value, p, reason="no interval: computed for the first accuracy only")
        ci, clustered, why = interval(value, resampled(), precise, n)
        return Coefficient(value, p, ci, clustered, reason=why)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        correlation = Correlation(
            n,
            units,
            effective,
            estimate(stats.pearsonr(x, y), lambda: over_families.pearson(x, y)),
            estimate(stats.spearmanr(x, y), lambda: over_families.spearman(x, y)),
            estimate(
                stats.kendalltau(x, y), (lambda: over_families.kendall(x, y)) if full else None
            ),
            estimate(
                stats.weightedtau(x, y), (lambda: few.weighted_kendall(x, y)) if full else None
            ),
        )
        if not full or n < MIN_UNITS:
            return correlation
        over_rows, as_if_independent = bootstraps.of(np.arange(n)), Precision(1.0, n - 1)
        rows_ci = {
            "pearson": interval(
                correlation.pearson.value, over_rows.pearson(x, y), as_if_independent, n
            )[0],
            "spearman": interval(
                correlation.spearman.value, over_rows.spearman(x, y), as_if_independent, n
            )[0],
        }
    return replace(
        correlation,
        **{name: replace(getattr(correlation, name), ci_rows=ci) for name, ci in rows_ci.items()},
    )


def _about_1(values: np.ndarray) -> np.ndarray:
    """The same values times a power of two, which changes no digit of them, so that their squares fit."""
    _, exponent = np.frexp(np.abs(values).max())
    return np.asarray(np.ldexp(values, -exponent))


def correlations(
    rows: pd.DataFrame,
    bootstraps: Bootstraps,
    families: pd.Series | None = None,
    *,
    full: bool = True,
) -> dict[str, dict[str, Correlation]]:
    """Every score against every target over the measured rows, whose ``families`` are their own if not given.

    ``full`` as for `correlate`, for the first target.
    """
    rows = succeeded(rows)
    families = families_of(rows)[1] if families is None else families
    targets, scores = targets_of(rows), scores_of(rows)
    # In the order in which they are shown, whatever the order in which they are computed.
    by_score: dict[str, dict[str, Correlation]] = {score: {} for score in scores}
    alike: dict[bytes, list[str]] = {}
    for target in targets:  # those that are known for the same rows share their resamples
        alike.setdefault(np.isfinite(values(rows, target)).tobytes(), []).append(target)
    computed: dict[tuple[str, str], Correlation] = {}
    for together in alike.values():
        for score, target in product(scores, together):
            x, y = values(rows, score), values(rows, target)
            in_full = full and target == targets[0]
            computed[score, target] = correlate(x, y, families, bootstraps, full=in_full)
    for score, target in product(scores, targets):
        by_score[score][target] = computed[score, target]
    return with_holm(by_score)


def with_holm(correlations: dict[str, dict[str, Correlation]]) -> dict[str, dict[str, Correlation]]:
    """Add Holm's correction to Spearman's p over all pairs but the primary one and those of the ceiling.

    Top-1, ReaL and V2 accuracy count as one target: the first of them that is there stands for all.

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    pairs: dict[tuple[str, str], float] = {}
    for score, by_target in correlations.items():
        if score == CEILING:
            continue
        for target, correlation in by_target.items():
            pair = (score, _evidence(target, by_target))
            p = correlation.spearman.p_families
            if p is not None and target == pair[1] and pair != (PRIMARY_MEASURE, PRIMARY_TARGET):
                pairs[pair] = p
    if not pairs:
        return correlations
    _, corrected_p, *_ = multipletests(list(pairs.values()), method="holm")
    adjusted = dict(zip(pairs, corrected_p, strict=True))

    corrected: dict[str, dict[str, Correlation]] = {}
    for score, by_target in correlations.items():
        corrected[score] = {}
        for target, correlation in by_target.items():
            p = adjusted.get((score, _evidence(target, by_target)))
            if p is not None:
                spearman = replace(correlation.spearman, p_holm=float(p))
                correlation = replace(correlation, spearman=spearman)
            corrected[score][target] = correlation
    return corrected


def _evidence(target: str, by_target: Mapping[str, Any]) -> str:
    return next(t for t in SAME_EVIDENCE if t in by_target) if target in SAME_EVIDENCE else target


def correlations_within_groups(
    rows: pd.DataFrame, bootstraps: Bootstraps
) -> dict[str, dict[str, dict[str, Correlation]]]:
    """The same among the rows of each group; empty without groups."""
    rows = succeeded(rows)
    families = families_of(rows)[1]
    parts = {group: rows[rows["group"].eq(group).fillna(False)] for group in groups_of(rows)}
    return {
        group: correlations(part, bootstraps, families.loc[part.index], full=False)
        for group, part in parts.items()
    }


def why_undefined(x: np.ndarray, y: np.ndarray) -> str | None:
    """Why nothing can be computed of x [n] and y [n]; None if something can."""
    if len(x) < MIN_ROWS:
        return f"{len(x)} rows have both values, fewer than {MIN_ROWS}"
    for numbers, what in ((x, "measure"), (y, "accuracy")):
        # Half of each, because the range of all that float64 holds is beyond it.
        half_range = np.ptp(numbers / 2)
        # The relative limit is where float64 keeps no digit of the spread.
        if half_range <= max(MIN_RANGE, 1e-12 * np.abs(numbers).max()) / 2:
            return f"the {what} is constant"
    return None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
