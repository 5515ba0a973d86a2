"""Comparison of how closely scores follow accuracy: differences of their correlations, and ranks with intervals.

Strength is the absolute value of Spearman's rho, so the direction of a score does not matter. Differences are those of
its Fisher transform, whose error hardly depends on its value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from dsmi_zoo._util.text import counted

from .bootstrap import (
    LEVEL,
    NEARLY_ONE,
    Resamples,
    fisher,
    influence_on_spearman,
    middle_error,
    middle_errors,
    small_sample,
    standard_ranks,
)
from .correlation import MIN_UNITS, Bootstraps, holm, why_undefined
from .sample import CEILING, families_of, scores_of, static_rankers, succeeded, targets_of, values

Array = np.ndarray
# Scores known for a smaller share of the models are left out, because all are ranked on the same rows.
KNOWN_FOR = 0.9
UNDEFINED = 0.5  # the share of undefined resamples above which there is no error


@dataclass(frozen=True)
class Difference:
    """The difference in strength of two scores' Spearman correlations, on the same rows and resamples.

    ``value`` and ``ci`` are differences of absolute rho; p is that of the difference of Fisher's z.
    """

    n: int
    value: float | None = None
    ci: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Standing:
    """A score's rank by the strength of its correlation (1 is the strongest), and the range of plausible ranks.

    ``behind_best`` and ``beyond_static`` are differences of absolute rho: of the best score minus this one, and of this
    one minus the best static ranker. All intervals of one target are simultaneous at 0.95.
    """

    rank: int
    ranks: tuple[int, int]
    behind_best: float
    behind_best_ci: tuple[float, float]
    beyond_static: float | None = None
    beyond_static_ci: tuple[float, float] | None = None


@dataclass(frozen=True)
class Standings:
    """All scores for one target on the same n rows; ``static`` is the best ranker that looks at no image.

    ``left_out`` gives the reasons for the scores that are not ranked.
    """

    n: int
    best: str | None = None
    static: str | None = None
    scores: Mapping[str, Standing] | None = None
    left_out: Mapping[str, str] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Strength:
    """A score's Fisher z of absolute rho, its values in the resamples [b], and each row's part in it [n]."""

    z: float
    drawn: Array
    influence: Array


def strength(x: Array, y: Array, resamples: Resamples) -> Strength:
    """Return the strength of the correlation of x [n] and y [n], in either direction."""
    rho = float(standard_ranks(x) @ standard_ranks(y)) / len(x)
    sign = -1 if rho < 0 else 1
    size = min(abs(rho), NEARLY_ONE)
    rhos = np.clip(sign * resamples.spearman(x, y), -NEARLY_ONE, NEARLY_ONE)
    influence = sign * influence_on_spearman(x, y)
    return Strength(float(np.arctanh(size)), fisher(rhos, size, len(x)), influence)


def differences(
    rows: pd.DataFrame, target: str, reference: str, bootstraps: Bootstraps
) -> dict[str, Difference]:
    """Return each other score's strength minus that of ``reference``, on the rows that have both.

    The standard error is half the width of the middle 68% of the resamples, with the correction of
    `dsmi_zoo.reports.statistics.bootstrap.small_sample`. Holm's p is over the scores.
    """
    rows = succeeded(rows)
    families = families_of(rows)[1].to_numpy(dtype=object)
    y, base = values(rows, target), values(rows, reference)
    by_score: dict[str, Difference] = {}
    for score in scores_of(rows):
        if score in (reference, CEILING):
            continue
        x = values(rows, score)
        known = np.isfinite(x) & np.isfinite(y) & np.isfinite(base)
        by_score[score] = _difference(x[known], base[known], y[known], families[known], bootstraps)
    for score, p in holm({s: d.p for s, d in by_score.items() if d.p is not None}).items():
        by_score[score] = replace(by_score[score], p_holm=p)
    return by_score


def _difference(
    x: Array, base: Array, y: Array, families: Array, bootstraps: Bootstraps
) -> Difference:
    unit = pd.factorize(families)[0]
    units = int(unit.max(initial=-1)) + 1
    reason = why_undefined(x, y) or why_undefined(base, y)
    if reason is None and units < MIN_UNITS:
        reason = f"{counted(units, 'independent unit')}, fewer than {MIN_UNITS}"
    if reason:
        return Difference(len(x), reason=reason)
    return difference(x, base, y, unit, bootstraps.of(unit))


def difference(x: Array, base: Array, y: Array, unit: Array, resamples: Resamples) -> Difference:
    """Return how much more strongly x [n] correlates with y [n] than base [n] does; ``unit`` numbers the families."""
    one, other = strength(x, y, resamples), strength(base, y, resamples)
    drawn = one.drawn - other.drawn
    if np.isnan(drawn).mean() > UNDEFINED:
        return Difference(len(x), reason="undefined in most resamples")
    small, error = small_sample(unit, one.influence - other.influence), middle_error(drawn)
    half, p = small.half_width(error), small.p_value(one.z - other.z, error)
    value, low, high = _as_rho(one.z, other.z, half)
    return Difference(len(x), value, (low, high), p)


def standings(rows: pd.DataFrame, bootstraps: Bootstraps) -> dict[str, Standings]:
    """Return the standing of every score for every target, over the measured rows."""
    rows = succeeded(rows)
    samples = {target: sample_of(rows, target) for target in targets_of(rows)}
    by_unit: dict[bytes, list[Sample]] = {}
    for sample in samples.values():
        by_unit.setdefault(sample.known.tobytes(), []).append(sample)
    for same in by_unit.values():
        # Accuracies of the same models share the ranks of the scores.
        if same[0].units >= MIN_UNITS:
            scores = [x for sample in same for x in sample.columns.values()]
            bootstraps.of(same[0].unit).rank(scores, [sample.y for sample in same])
    return {target: standings_for(rows, target, bootstraps) for target in samples}


@dataclass(frozen=True)
class Sample:
    """The values [n] of the rows that have a target and all scores ranked for it; ``known`` marks them among all rows.

    ``unit`` is each row's family; ``left_out`` gives the reasons for the scores that are not ranked.
    """

    known: Array
    y: Array
    columns: Mapping[str, Array]
    unit: Array
    left_out: dict[str, str]

    @property
    def units(self) -> int:
        """The number of families."""
        return int(self.unit.max(initial=-1)) + 1


def sample_of(rows: pd.DataFrame, target: str) -> Sample:
    """Return the rows on which the scores are ranked for a target."""
    y = values(rows, target)
    columns = {score: values(rows, score) for score in scores_of(rows) if score != CEILING}
    published = values(rows, "top1")
    if "top1" in static_rankers(target) and np.isfinite(published).any():
        columns["top1"] = published
    has_target = np.isfinite(y)
    left_out: dict[str, str] = {}
    for score, x in columns.items():
        there = int(np.isfinite(x[has_target]).sum())
        if there < KNOWN_FOR * has_target.sum():
            left_out[score] = f"known for {there} of {has_target.sum()} models"
    known = has_target.copy()
    for score, x in columns.items():
        if score not in left_out:
            known &= np.isfinite(x)
    unit = pd.factorize(families_of(rows)[1].to_numpy(dtype=object)[known])[0]
    ranked = {score: x[known] for score, x in columns.items() if score not in left_out}
    return Sample(known, y[known], ranked, unit, left_out)


def standings_for(rows: pd.DataFrame, target: str, bootstraps: Bootstraps) -> Standings:
    """Return the standing of every score for one target, on the rows that have all of them.

    The intervals of all differences between two scores are simultaneous: their quantile is that of the greatest
    absolute deviation in a resample, in standard errors, converted to Student's t. So they also hold for pairs that
    the data select, such as the best score and each other. A score's rank is between 1 + the number of significantly
    stronger scores and the number of scores that are not significantly weaker.

    References
    ----------
    Romano and Wolf (2005), Stepwise multiple testing as formalized data snooping. Klein, Wright and Wieczorek (2020),
    A joint confidence region for an overall ranking of populations. Mogstad, Romano, Shaikh and Wilhelm (2024),
    Inference for ranks with applications to mobility across neighbourhoods and academic achievement across countries.
    """
    sample = sample_of(rows, target)
    n, y, left_out = len(sample.y), sample.y, sample.left_out
    if sample.units < MIN_UNITS:
        reason = f"{counted(sample.units, 'independent unit')}, fewer than {MIN_UNITS}"
        return Standings(n, left_out=left_out, reason=reason)
    resamples = bootstraps.of(sample.unit)
    resamples.rank(list(sample.columns.values()), [y])
    strengths: dict[str, Strength] = {}
    for score, x in sample.columns.items():
        why = why_undefined(x, y)
        if why is None:
            strengths[score] = strength(x, y, resamples)
            if np.isnan(strengths[score].drawn).mean() > UNDEFINED:
                del strengths[score]
                why = "undefined in most resamples"
        if why:
            left_out[score] = why
    if len(strengths) < 2:
        return Standings(n, left_out=left_out, reason="fewer than two scores have a correlation")
    static = [score for score in static_rankers(target) if score in strengths]
    return _ranked(sample.unit, strengths, static, left_out)


def _ranked(
    unit: Array,
    strengths: Mapping[str, Strength],
    static: Sequence[str],
    left_out: Mapping[str, str],
) -> Standings:
    names = list(strengths)
    z = np.array([strengths[name].z for name in names])
    reach = simultaneous_reach(list(strengths.values()), unit)
    lag = z[:, None] - z  # [i, j]: how much stronger i is than j
    is_stronger = lag - reach > 0
    best = int(np.argmax(z))
    best_static = max(static, key=lambda name: strengths[name].z) if static else None
    scores: dict[str, Standing] = {}
    for i, name in enumerate(names):
        behind, low, high = _as_rho(z[best], z[i], reach[best, i])
        standing = Standing(
            rank=1 + int((z > z[i]).sum()),
            ranks=(1 + int(is_stronger[:, i].sum()), len(names) - int(is_stronger[i].sum())),
            behind_best=behind,
            behind_best_ci=(low, high),
        )
        if best_static is not None and name not in static:
            s = names.index(best_static)
            beyond, low, high = _as_rho(z[i], z[s], reach[i, s])
            standing = replace(standing, beyond_static=beyond, beyond_static_ci=(low, high))
        scores[name] = standing
    return Standings(len(unit), names[best], best_static, scores, left_out)


def simultaneous_reach(strengths: Sequence[Strength], unit: Array) -> Array:
    """Return half the widths of simultaneous 95% intervals of all differences of z among k scores: [k, k].

    Parameters
    ----------
    unit
        Each row's family, numbers from 0, [n].
    """
    k = len(strengths)
    # The deviation of each score from its own value in every resample, [k, b].
    away = np.array([one.drawn - one.z for one in strengths])
    greatest = np.zeros(away.shape[1])
    errors, scales = np.zeros((k, k)), np.zeros((k, k))
    degrees = np.ones((k, k))
    for i in range(k - 1):  # all pairs at once would take gigabytes
        deviations = away[i] - away[i + 1 :]
        errors[i, i + 1 :] = middle_errors(deviations)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.abs(deviations) / errors[i, i + 1 :, None]
        greatest = np.fmax(greatest, np.fmax.reduce(np.where(np.isfinite(shares), shares, np.nan)))
        for j in range(i + 1, k):
            small = small_sample(unit, strengths[i].influence - strengths[j].influence)
            scales[i, j], degrees[i, j] = small.scale, small.degrees
    tail = stats.norm.sf(np.quantile(greatest, LEVEL))
    # Convert the normal quantile to Student's t, because the error is estimated from few families.
    reach = np.triu(stats.t.isf(tail, degrees) * scales * errors, 1)
    return np.asarray(reach + reach.T)


def _as_rho(z_one: float, z_other: float, half: float) -> tuple[float, float, float]:
    """Convert a difference of Fisher's z and its limits to differences of rho around the same middle.

    This is monotone in the difference, exact at its value, and keeps its sign. Both rho are absolute, so that the
    limits lie in -1 to 1.
    """
    middle, difference = (z_one + z_other) / 2, z_one - z_other

    def rho(d: float) -> float:
        return float(np.tanh(middle + d / 2) - np.tanh(middle - d / 2))

    low, high = rho(difference - half), rho(difference + half)
    return rho(difference), max(low, -1.0), min(high, 1.0)
