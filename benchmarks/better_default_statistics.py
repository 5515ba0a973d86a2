"""Spearman's rho over seeds, the choice of a candidate, and intervals that resample architectures."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from better_default_candidates import CANDIDATES, Array
from scipy import stats

from dsmi_zoo.reports.statistics.bootstrap import LEVEL, Resamples, interval, small_sample

RESAMPLES = 4000


@dataclass(frozen=True)
class Zoo:
    """All seeds' models in one order, [models]: what is compared, [seeds, models, ...]."""

    architectures: np.ndarray
    groups: np.ndarray
    top1: Array
    candidates: Array
    described: Array
    others: dict[str, Array]
    controls: Array


def spearman(x: Array, y: Array) -> Array:
    """Spearman's rho of x [seeds, models, scores] with y [seeds, models], a mean over seeds: [scores]."""
    ranks, targets = (stats.rankdata(v, axis=1) for v in (x, y))
    ranks, targets = (v - v.mean(axis=1, keepdims=True) for v in (ranks, targets))
    with np.errstate(invalid="ignore"):  # a constant score has none
        rho = np.einsum("smc,sm->sc", ranks, targets) / np.sqrt(
            (ranks**2).sum(axis=1) * (targets**2).sum(axis=1)[:, None]
        )
    return np.asarray(np.nan_to_num(rho, nan=0.0).mean(axis=0))


def halves(architectures: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which models select and which are held out, bool [models] each."""
    names = np.unique(architectures)
    selecting = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
    return np.isin(architectures, selecting), ~np.isin(architectures, selecting)


def select(zoo: Zoo, selecting: np.ndarray) -> tuple[int, int]:
    """The highest candidate, and the simplest within one standard error of it (jackknife over architectures)."""
    x, y, names = zoo.candidates[:, selecting], zoo.top1[:, selecting], zoo.architectures[selecting]
    rho = spearman(x, y)
    highest = int(rho.argmax())
    without = np.array([spearman(x[:, names != a], y[:, names != a]) for a in np.unique(names)])
    near = np.flatnonzero(rho[highest] - rho <= jackknife_error(without[:, [highest]] - without))
    return highest, int(min(near, key=lambda i: (CANDIDATES[i].departures, -rho[i])))


def jackknife_error(without: Array) -> Array:
    """The standard error of a statistic, from its values without each unit, [units, ...]."""
    g = len(without)
    return np.asarray(np.sqrt((g - 1) / g * ((without - without.mean(axis=0)) ** 2).sum(axis=0)))


class Resampled:
    """Spearman's rho of one score on some models, with the same resamples of architectures for all seeds and scores."""

    def __init__(self, zoo: Zoo, rows: np.ndarray) -> None:
        self.zoo, self.rows = zoo, rows
        self.unit = pd.factorize(zoo.architectures[rows])[0]
        self.resamples = Resamples.drawn(self.unit, RESAMPLES, seed=0)
        self.t = stats.t(self.unit.max())

    def values(self, x: Array) -> tuple[float, Array]:
        """The mean over seeds of the rows, x [seeds, models], and of each resample, [b]."""
        x, y = x[:, self.rows], self.zoo.top1[:, self.rows]
        drawn = [self.resamples.spearman(x[s], y[s]) for s in range(len(x))]
        return float(spearman(x[:, :, None], y)[0]), np.nanmean(drawn, axis=0)

    def interval(self, x: Array) -> tuple[float, tuple[float, float] | None]:
        """The value and its interval."""
        value, drawn = self.values(x)
        return value, interval(value, drawn, small_sample(self.unit), len(self.unit))[0]

    def difference(self, x: Array, reference: Array) -> tuple[float, tuple[float, float], float]:
        """How much higher x is than the reference: value, interval, p."""
        (value, drawn), (base, base_drawn) = self.values(x), self.values(reference)
        error = float(np.std(drawn - base_drawn, ddof=1))
        half = float(self.t.ppf(0.5 + LEVEL / 2)) * error
        gain = value - base
        return (
            gain,
            (gain - half, gain + half),
            float(2 * self.t.sf(abs(gain) / error)) if error else 1.0,
        )

    def jackknifed(self, x: Array, reference: Array) -> tuple[float, float]:
        """The interval of the same difference by a jackknife over architectures, which is less bold."""
        both, y = np.stack([x, reference], axis=2)[:, self.rows], self.zoo.top1[:, self.rows]
        kept = [self.unit != u for u in np.unique(self.unit)]
        without = np.array([np.subtract(*spearman(both[:, k], y[:, k])) for k in kept])
        half = float(self.t.ppf(0.5 + LEVEL / 2) * jackknife_error(without))
        gain = float(np.subtract(*spearman(both, y)))
        return gain - half, gain + half

    def partial(self, x: Array) -> tuple[float, tuple[float, float] | None]:
        """Spearman's rho given the ranks of scale, dimension and parameters; the regressions are held fixed."""
        x, y, given = x[:, self.rows], self.zoo.top1[:, self.rows], self.zoo.controls[:, self.rows]
        values, drawn = [], []
        for s in range(len(x)):
            design = np.column_stack([np.ones(len(self.unit)), stats.rankdata(given[s], axis=0)])
            left = [
                r - design @ np.linalg.lstsq(design, r, rcond=None)[0]
                for r in map(stats.rankdata, (x[s], y[s]))
            ]
            values.append(np.corrcoef(*left)[0, 1])
            drawn.append(self.resamples.pearson(*left))
        value = float(np.mean(values))
        return value, interval(
            value, np.nanmean(drawn, axis=0), small_sample(self.unit), len(self.unit)
        )[0]

    def within_groups(self, x: Array) -> float:
        """The mean over seeds and groups (training budgets) of rho within the group."""
        groups = self.zoo.groups[self.rows]
        x, y = x[:, self.rows, None], self.zoo.top1[:, self.rows]
        return float(
            np.mean([spearman(x[:, groups == g], y[:, groups == g])[0] for g in np.unique(groups)])
        )
