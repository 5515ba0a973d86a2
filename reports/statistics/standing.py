"""Which scores go with accuracy more closely than others: differences of their correlations, and ranks with intervals.

Strength is the absolute value of Spearman's rho, so that a score of which less is better counts as much. Differences
are taken of its Fisher transform, whose error hardly depends on its value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from .bootstrap import (
    LEVEL,
    NEARLY_ONE,
    Resamples,
    fisher,
    influence_on_spearman,
    middle_error,
    middle_errors,
    precision,
    standard_ranks,
)
from .correlation import MIN_UNITS, Bootstraps, why_undefined
from .sample import CEILING, families_of, scores_of, static_rankers, succeeded, targets_of, values

Array = np.ndarray
# A score that is known for fewer of the models would take too many of them from the other scores.
KNOWN_FOR = 0.9
UNDEFINED = 0.5  # the share of undefined resamples above which there is no error


@dataclass(frozen=True)
class Difference:
    """How much stronger one score's Spearman correlation is than another's, on the same rows and resamples.

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
    """A score's rank by the strength of its correlation (1 is the strongest), and the ranks that cannot be excluded.

    ``behind_best`` and ``beyond_static`` are differences of absolute rho: of the best score less this one, and of this
    one less the best static ranker. All intervals of one target hold together with a probability of 0.95.
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

    ``left_out`` gives the reasons of the scores that are not ranked.
    """

    n: int
    best: str | None = None
    static: str | None = None
    scores: Mapping[str, Standing] | None = None
    left_out: Mapping[str, str] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Strength:
    """A score's Fisher z of absolute rho, the same in every resample [b], and each row's part in it [n]."""

    z: float
    drawn: Array
    influence: Array


def strength(x: Array, y: Array, resamples: Resamples) -> Strength:
    """How strongly x [n] and y [n] go together, whichever the direction."""
    rho = float(standard_ranks(x) @ standard_ranks(y)) / len(x)
    turn = -1 if rho < 0 else 1
    size = min(abs(rho), NEARLY_ONE)
    drawn = fisher(np.clip(turn * resamples.spearman(x, y), -NEARLY_ONE, NEARLY_ONE), size, len(x))
    return Strength(float(np.arctanh(size)), drawn, turn * influence_on_spearman(x, y))


def differences(
    rows: pd.DataFrame, target: str, reference: str, bootstraps: Bootstraps
) -> dict[str, Difference]:
    """Each other score's strength less that of ``reference``, each pair on the rows that know both.

    The standard error is half the width of the middle 68% of the resamples, corrected as in
    `dsmi_zoo.reports.statistics.bootstrap.precision`. Holm's p is over the scores.
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
    known_p = {score: d.p for score, d in by_score.items() if d.p is not None}
    if known_p:
        adjusted = multipletests(list(known_p.values()), method="holm")[1]
        for score, p in zip(known_p, adjusted, strict=True):
            by_score[score] = replace(by_score[score], p_holm=float(p))
    return by_score


def _difference(
    x: Array, base: Array, y: Array, families: Array, bootstraps: Bootstraps
) -> Difference:
    unit = pd.factorize(families)[0]
    units = int(unit.max(initial=-1)) + 1
    reason = why_undefined(x, y) or why_undefined(base, y)
    if reason is None and units < MIN_UNITS:
        reason = f"{units} independent units, fewer than {MIN_UNITS}"
    if reason:
        return Difference(len(x), reason=reason)
    return difference(x, base, y, unit, bootstraps.of(unit))


def difference(x: Array, base: Array, y: Array, unit: Array, resamples: Resamples) -> Difference:
    """How much more strongly x [n] goes with y [n] than base [n] does; each row's unit is its family, from 0."""
    one, other = strength(x, y, resamples), strength(base, y, resamples)
    drawn = one.drawn - other.drawn
    if np.isnan(drawn).mean() > UNDEFINED:
        return Difference(len(x), reason="undefined in most resamples")
    precise, error = precision(unit, one.influence - other.influence), middle_error(drawn)
    half, p = precise.half_width(error), precise.p_value(one.z - other.z, error)
    value, low, high = _as_rho(one.z, other.z, half)
    return Difference(len(x), value, (low, high), p)


def standings(rows: pd.DataFrame, bootstraps: Bootstraps) -> dict[str, Standings]:
    """The standing of every score for every target, over the measured rows."""
    rows = succeeded(rows)
    return {target: standings_for(rows, target, bootstraps) for target in targets_of(rows)}


def standings_for(rows: pd.DataFrame, target: str, bootstraps: Bootstraps) -> Standings:
    """The standing of every score for one target, on the rows that know all of them.

    All differences between two scores get intervals that hold together: the quantile is that of the greatest absolute
    deviation among them in a resample, in standard errors, carried over to Student's t. So they also hold for the pairs
    that the data pick out: the best score against each other. A score's rank lies between one more than the number of
    scores that are surely stronger and the number of those that are not surely weaker.

    References
    ----------
    Romano and Wolf (2005), Stepwise multiple testing as formalized data snooping. Klein, Wright and Wieczorek (2020),
    A joint confidence region for an overall ranking of populations. Mogstad, Romano, Shaikh and Wilhelm (2024),
    Inference for ranks with applications to mobility across neighbourhoods and academic achievement across countries.
    """
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
    known = has_target & np.all(
        [np.isfinite(x) for s, x in columns.items() if s not in left_out] or [has_target], 0
    )
    n = int(known.sum())
    unit = pd.factorize(families_of(rows)[1].to_numpy(dtype=object)[known])[0]
    units = int(unit.max(initial=-1)) + 1
    if units < MIN_UNITS:
        return Standings(
            n, left_out=left_out, reason=f"{units} independent units, fewer than {MIN_UNITS}"
        )
    resamples = bootstraps.of(unit)
    strengths: dict[str, Strength] = {}
    for score, x in columns.items():
        if score in left_out:
            continue
        why = why_undefined(x[known], y[known])
        if why is None:
            strengths[score] = strength(x[known], y[known], resamples)
            if np.isnan(strengths[score].drawn).mean() > UNDEFINED:
                del strengths[score]
                why = "undefined in most resamples"
        if why:
            left_out[score] = why
    if len(strengths) < 2:
        return Standings(n, left_out=left_out, reason="fewer than two scores have a correlation")
    static = [score for score in static_rankers(target) if score in strengths]
    return _ranked(unit, strengths, static, left_out)


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
    surely_stronger = lag - reach > 0
    best = int(np.argmax(z))
    best_static = max(static, key=lambda name: strengths[name].z) if static else None
    scores: dict[str, Standing] = {}
    for i, name in enumerate(names):
        behind, *behind_ci = _as_rho(z[best], z[i], reach[best, i])
        standing = Standing(
            rank=1 + int((z > z[i]).sum()),
            ranks=(
                1 + int(surely_stronger[:, i].sum()),
                len(names) - int(surely_stronger[i].sum()),
            ),
            behind_best=behind,
            behind_best_ci=(behind_ci[0], behind_ci[1]),
        )
        if best_static is not None and name not in static:
            s = names.index(best_static)
            beyond, *beyond_ci = _as_rho(z[i], z[s], reach[i, s])
            standing = replace(
                standing, beyond_static=beyond, beyond_static_ci=(beyond_ci[0], beyond_ci[1])
            )
        scores[name] = standing
    return Standings(len(unit), names[best], best_static, scores, left_out)


def simultaneous_reach(strengths: Sequence[Strength], unit: Array) -> Array:
    """Half the widths of intervals for all differences of z among k scores that hold together at 0.95: [k, k].

    Parameters
    ----------
    unit
        Each row's family, numbers from 0, [n].
    """
    k = len(strengths)
    # How far each score is from its own value in every resample, [k, b].
    away = np.array([one.drawn - one.z for one in strengths])
    greatest = np.zeros(away.shape[1])
    errors, scales = np.zeros((k, k)), np.zeros((k, k))
    degrees = np.ones((k, k))
    for i in range(k - 1):  # all pairs at once would be gigabytes
        deviations = away[i] - away[i + 1 :]
        errors[i, i + 1 :] = middle_errors(deviations)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.abs(deviations) / errors[i, i + 1 :, None]
        greatest = np.fmax(greatest, np.fmax.reduce(np.where(np.isfinite(shares), shares, np.nan)))
        for j in range(i + 1, k):
            precise = precision(unit, strengths[i].influence - strengths[j].influence)
            scales[i, j], degrees[i, j] = precise.scale, precise.degrees
    tail = stats.norm.sf(np.quantile(greatest, LEVEL))
    # The tail that a normal quantile leaves, at Student's t: the error itself comes from few families.
    reach = np.triu(stats.t.isf(tail, degrees) * scales * errors, 1)
    return np.asarray(reach + reach.T)


def _as_rho(z_one: float, z_other: float, half: float) -> tuple[float, float, float]:
    """A difference of Fisher's z and its limits as differences of rho around the same middle.

    Monotone in the difference, exact at its value, and of the same sign.
    """
    middle, difference = (z_one + z_other) / 2, z_one - z_other

    def rho(d: float) -> float:
        return float(np.tanh(middle + d / 2) - np.tanh(middle - d / 2))

    return rho(difference), rho(difference - half), rho(difference + half)
