"""Correlations of scores and accuracies, with intervals that account for dependence within families."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from dsmi_zoo._util.text import counted

from .bootstrap import (
    RESAMPLES,
    WEIGHTED_KENDALL_RESAMPLES,
    Resamples,
    SmallSample,
    influence_on_spearman,
    interval,
    small_sample,
)
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

Array = np.ndarray
Families = Sequence[Any] | Array | pd.Series
# Sets of rows whose resamples are cached: those of all rows are reused often, and each set takes 30 MB or more.
KEPT = 4
MIN_ROWS = 3
# Resampling fewer families mostly repeats the data, and says nothing about others.
MIN_UNITS = 5
ONLY_IN_FULL = ("kendall", "weighted_kendall")  # their intervals take the most time
# A column that varies less than this is constant up to rounding.
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
    """Four coefficients of a score and a target over n rows of ``units`` families; ``effective`` is Kish's number."""

    n: int
    units: int
    effective: float
    pearson: Coefficient
    spearman: Coefficient
    kendall: Coefficient
    weighted_kendall: Coefficient


@dataclass
class Bootstraps:
    """A cache of the resamples of each set of rows with the same families."""

    resamples: int = RESAMPLES
    weighted_kendall_resamples: int = WEIGHTED_KENDALL_RESAMPLES
    seed: int = 0
    _made: dict[bytes, Resamples] = field(default_factory=dict)

    def of(self, unit: Array) -> Resamples:
        """Return the resamples of rows with these units [n]."""
        key = unit.tobytes()
        made = self._made.pop(key, None) or Resamples.drawn(unit, self.resamples, self.seed)
        self._made[key] = made  # the latest last
        if len(self._made) > KEPT:
            self._made.pop(next(iter(self._made)))
        return made


def correlate(
    x: Array,
    y: Array,
    families: Families,
    bootstraps: Bootstraps | None = None,
    *,
    full: bool = True,
) -> Correlation:
    """Compute four correlation coefficients with intervals from a bootstrap over families.

    The interval is symmetric in Fisher's transformation. Its standard error is that of the resamples, corrected for
    few, unequal families; its quantile is Student's t with Satterthwaite's degrees of freedom
    (`dsmi_zoo.reports.statistics.bootstrap.small_sample`). Percentile intervals are too short.

    Parameters
    ----------
    x, y
        Numbers [n]; pairs with a NaN are left out.
    families
        Each row's family [n], the unit of the resampling.
    full
        Whether to add the interval over rows and those of both Kendalls, which take the most time.

    Returns
    -------
    Correlation
        Its values are None, with a reason, if there are fewer than three pairs, or if x or y is constant.

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
    # Squares of huge numbers overflow; a power of two changes no digit and no coefficient.
    x, y = _about_1(x), _about_1(y)
    over_families = bootstraps.of(unit)
    small = small_sample(unit, influence_on_spearman(x, y))
    few = over_families.first(bootstraps.weighted_kendall_resamples)

    coefficients: dict[str, Coefficient] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        over_rows = bootstraps.of(np.arange(n)) if full and n >= MIN_UNITS else None
        for name, coefficient, resamples in (
            ("pearson", stats.pearsonr, over_families),
            ("spearman", stats.spearmanr, over_families),
            ("kendall", stats.kendalltau, over_families),
            ("weighted_kendall", stats.weightedtau, few),
        ):
            result = coefficient(x, y)
            value, p = _finite(result.statistic), _finite(result.pvalue)
            if units < MIN_UNITS:
                why: str | None = (
                    f"no interval: {counted(units, 'independent unit')}, fewer than {MIN_UNITS}"
                )
                found = Coefficient(value, p, reason=why)
            elif full or name not in ONLY_IN_FULL:
                drawn = getattr(resamples, name)(x, y)
                ci, p_families, why = interval(value, drawn, small, n)
                found = Coefficient(value, p, ci, p_families, reason=why)
            else:
                why = "no interval: computed for the first accuracy only"
                found = Coefficient(value, p, reason=why)
            if over_rows is not None and name not in ONLY_IN_FULL:
                drawn = getattr(over_rows, name)(x, y)
                ci_rows = interval(value, drawn, SmallSample(1.0, n - 1), n)[0]
                found = replace(found, ci_rows=ci_rows)
            coefficients[name] = found
    return Correlation(n, units, effective, **coefficients)


def _about_1(values: Array) -> Array:
    """Return the values times a power of two, so that the largest is about 1."""
    _, exponent = np.frexp(np.abs(values).max())
    return np.asarray(np.ldexp(values, -exponent))


def correlations(
    rows: pd.DataFrame,
    bootstraps: Bootstraps,
    families: pd.Series | None = None,
    *,
    full: bool = True,
) -> dict[str, dict[str, Correlation]]:
    """Correlate every score with every target over the measured rows; ``families`` default to `families_of`.

    ``full`` is that of `correlate` for the first target.
    """
    rows = succeeded(rows)
    families = families_of(rows)[1] if families is None else families
    targets, scores = targets_of(rows), scores_of(rows)
    groups = families.to_numpy(dtype=object)
    computed: dict[tuple[str, str], Correlation] = {}
    for known, pairs in same_rows(rows, scores, targets):
        rank_together(rows, known, pairs, groups, bootstraps)
        if full:
            of_first = [pair for pair in pairs if pair[1] == targets[0]]
            rank_together(rows, known, of_first, np.arange(len(rows)), bootstraps)
        for score, target in pairs:
            x, y = values(rows, score), values(rows, target)
            in_full = full and target == targets[0]
            computed[score, target] = correlate(x, y, groups, bootstraps, full=in_full)
    by_score: dict[str, dict[str, Correlation]] = {}
    for score in scores:
        by_score[score] = {target: computed[score, target] for target in targets}
    return with_holm(by_score)


Pairs = Sequence[tuple[str, str]]


def same_rows(
    rows: pd.DataFrame, scores: Sequence[str], targets: Sequence[str]
) -> list[tuple[Array, Pairs]]:
    """Group all pairs of a score and a target by the rows that have both, bool [n]."""
    known = {name: np.isfinite(values(rows, name)) for name in (*scores, *targets)}
    by_rows: dict[bytes, list[tuple[str, str]]] = {}
    for target, score in product(targets, scores):
        by_rows.setdefault((known[score] & known[target]).tobytes(), []).append((score, target))
    return [(np.frombuffer(key, dtype=bool), pairs) for key, pairs in by_rows.items()]


def rank_together(
    rows: pd.DataFrame, known: Array, pairs: Pairs, families: Array, bootstraps: Bootstraps
) -> None:
    """Rank all columns of the pairs in the known rows' resamples at once, so that later calls find them cached."""
    unit = pd.factorize(families[known])[0]
    if not pairs or int(unit.max(initial=-1)) + 1 < MIN_UNITS:
        return
    scores, targets = (
        [values(rows, name)[known] for name in dict.fromkeys(names)]
        for names in zip(*pairs, strict=True)
    )
    bootstraps.of(unit).rank(scores, targets)


def with_holm(correlations: dict[str, dict[str, Correlation]]) -> dict[str, dict[str, Correlation]]:
    """Add Holm's correction to Spearman's p over all pairs but the primary one and those of the ceiling.

    Top-1, ReaL and V2 accuracy count as one target, represented by the first of them that is known.

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    pairs: dict[tuple[str, str], float] = {}
    for score, by_target in correlations.items():
        for target, correlation in by_target.items():
            pair = (score, _evidence(target, by_target))
            p = correlation.spearman.p_families
            is_exploratory = score != CEILING and pair != (PRIMARY_MEASURE, PRIMARY_TARGET)
            if p is not None and target == pair[1] and is_exploratory:
                pairs[pair] = p
    adjusted = holm(pairs)

    corrected: dict[str, dict[str, Correlation]] = {}
    for score, by_target in correlations.items():
        corrected[score] = {}
        for target, correlation in by_target.items():
            p = adjusted.get((score, _evidence(target, by_target)))
            if p is not None:
                spearman = replace(correlation.spearman, p_holm=p)
                correlation = replace(correlation, spearman=spearman)
            corrected[score][target] = correlation
    return corrected


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """Return p values after Holm's correction."""
    if not p_values:
        return {}
    # Not statsmodels' multipletests: it runs the garbage collector at each call, a quarter of a small report's time.
    p = np.array(list(p_values.values()))
    order = p.argsort(kind="stable")
    corrected = np.empty_like(p)
    stepwise = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected[order] = np.minimum(stepwise, 1.0)
    return dict(zip(p_values, corrected.tolist(), strict=True))


def _evidence(target: str, by_target: Mapping[str, Any]) -> str:
    return next(t for t in SAME_EVIDENCE if t in by_target) if target in SAME_EVIDENCE else target


def correlations_within_groups(
    rows: pd.DataFrame, bootstraps: Bootstraps
) -> dict[str, dict[str, dict[str, Correlation]]]:
    """Return the `correlations` among the rows of each group; empty without groups."""
    rows = succeeded(rows)
    families = families_of(rows)[1]
    by_group = {}
    for group in groups_of(rows):
        part = rows[rows["group"].eq(group).fillna(False)]
        by_group[group] = correlations(part, bootstraps, families.loc[part.index], full=False)
    return by_group


def why_undefined(x: Array, y: Array) -> str | None:
    """Return why x [n] and y [n] have no correlation; None if they have."""
    if len(x) < MIN_ROWS:
        return f"{len(x)} rows have both values, fewer than {MIN_ROWS}"
    for numbers, what in ((x, "measure"), (y, "accuracy")):
        # Numbers are halved, because the full range of float64 overflows.
        half_range = np.ptp(numbers / 2)
        # Below the relative limit, float64 has no digit left for the spread.
        if half_range <= max(MIN_RANGE, 1e-12 * np.abs(numbers).max()) / 2:
            return f"the {what} is constant"
    return None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


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
        For each name of controls and each score, a correlation or the reason why it is undefined.
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
    left_x, left_y = residuals(x, design), residuals(y, design)
    reason = why_undefined(left_x, left_y)
    if reason:
        return Correlation(n, units, effective, *[Coefficient(reason=reason)] * 4)
    others = []
    why = "no interval: only Pearson's is refitted in each resample"
    for coefficient in (stats.spearmanr, stats.kendalltau, stats.weightedtau):
        others.append(Coefficient(float(coefficient(left_x, left_y).statistic), reason=why))
    value = float(stats.pearsonr(left_x, left_y).statistic)
    if units < MIN_UNITS + controls:
        why = (
            f"no interval: {counted(units, 'independent unit')}, fewer than {MIN_UNITS + controls}"
        )
        return Correlation(n, units, effective, Coefficient(value, reason=why), *others)
    drawn = resampled_partial(x, y, given, bootstraps.of(unit).counts, unit)
    small = less_controls(small_sample(unit, influence_on_spearman(left_x, left_y)), controls)
    ci, p, why_none = interval(value, drawn, small, n)
    pearson = Coefficient(value, ci=ci, p_families=p, reason=why_none)
    return Correlation(n, units, effective, pearson, *others)


def residuals(values: Array, design: Array) -> Array:
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
