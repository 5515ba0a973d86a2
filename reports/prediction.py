"""How well a score predicts the accuracy of models of an unseen family, and what choosing by it costs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .correlation import MIN_ROWS, MIN_UNITS, why_undefined
from .sample import families_of, scores_of, sign_of, succeeded, values

TAKEN = (1, 5, 10)
BANDS = 3
COSTS = {"gmacs": "GMACs", "params_m": "million parameters"}


@dataclass(frozen=True)
class Prediction:
    """Leave-one-family-out prediction by a straight line; errors in percent points, R2 against the others' mean."""

    n: int
    families: int
    r2: float | None = None
    mean_absolute_error: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Regret:
    """Accuracy (percent points) lost by taking the best of a score's first 1, 5, 10 models instead of the best one."""

    n: int
    best: float | None = None
    lost: Mapping[int, float] | None = None
    reason: str | None = None


def leave_one_family_out(x: np.ndarray, y: np.ndarray, families: np.ndarray | pd.Series) -> Prediction:
    """Predict each family's accuracies by the line through all the others.

    Parameters
    ----------
    x, y
        Numbers [n]; pairs with a NaN are left out.
    families
        Each row's family [n].

    Returns
    -------
    Prediction
        R2 is one less the squared error over that of predicting the mean of the other families; it may be negative.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    group = pd.factorize(np.asarray(families, dtype=object)[known])[0]
    count = int(group.max(initial=-1)) + 1
    reason = why_undefined(x, y)
    if reason is None and count < MIN_UNITS:
        reason = f"{count} families, fewer than {MIN_UNITS}"
    if reason:
        return Prediction(len(x), count, reason=reason)
    x = (x - x.mean()) / x.std()

    def of_others(column: np.ndarray) -> np.ndarray:
        return (column.sum() - np.bincount(group, column, count))[group]

    n, sx, sy, sxx, sxy = (of_others(column) for column in (np.ones_like(x), x, y, x * x, x * y))
    spread = sxx - sx * sx / n
    if (n < MIN_ROWS).any() or (spread < 1e-9).any():
        return Prediction(len(x), count, reason="without one family the score is constant")
    slope = (sxy - sx * sy / n) / spread
    error = y - (sy / n + slope * (x - sx / n))
    baseline = y - sy / n
    return Prediction(
        len(x), count, float(1 - (error**2).sum() / (baseline**2).sum()), float(np.abs(error).mean())
    )  # fmt: skip


def regret(x: np.ndarray, y: np.ndarray, taken: tuple[int, ...] = TAKEN) -> Regret:
    """What is lost by choosing among the models that a score x [n] puts first; equal scores in their order."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    reason = why_undefined(x, y)
    if reason:
        return Regret(len(x), reason=reason)
    order = np.argsort(-x, kind="stable")
    best = float(y.max())
    return Regret(len(x), best, {k: best - float(y[order[:k]].max()) for k in taken if k <= len(x)})


def predictions(rows: pd.DataFrame, target: str) -> dict[str, Prediction]:
    """Every score's leave-one-family-out prediction of the target."""
    rows = succeeded(rows)
    families, y = families_of(rows)[1], values(rows, target)
    return {score: leave_one_family_out(values(rows, score), y, families) for score in scores_of(rows)}


def regrets(rows: pd.DataFrame, target: str) -> dict[str, dict[str, Regret]]:
    """Every score's regret, overall and within thirds of the cost: by the band's name, by score."""
    rows = succeeded(rows)
    return {
        band: {s: regret(sign_of(s) * values(part, s), values(part, target)) for s in scores_of(rows)}
        for band, part in {"all models": rows, **cost_bands(rows)}.items()
    }


def cost_bands(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The measured rows in thirds of GMACs, or of parameters where those are unknown; none without either."""
    for column, unit in COSTS.items():
        cost = values(rows, column)
        if np.unique(cost[np.isfinite(cost)]).size >= 2 * BANDS:
            edges = np.nanquantile(cost, np.linspace(0, 1, BANDS + 1))
            edges[0] = -np.inf
            band = np.searchsorted(edges[1:-1], cost, side="left")
            shown = np.nanquantile(cost, np.linspace(0, 1, BANDS + 1))
            return {
                f"{shown[i]:.3g} to {shown[i + 1]:.3g} {unit}": rows[np.isfinite(cost) & (band == i)]
                for i in range(BANDS)
            }
    return {}
