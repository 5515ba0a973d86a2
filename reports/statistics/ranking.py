"""Which model to choose for one's own images: a ranking by the probe, ties, and what each costs."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from dsmi_zoo.pipeline.measures.core.hits import unpacked

from .sample import names, succeeded, values

LEVEL = 0.05
COSTS = {
    "throughput": ("published throughput", "images/s", True),
    "gmacs": ("GMACs", "", False),
    "params_m": ("parameters", "M", False),
    "cpu_throughput": ("published CPU throughput", "images/s", True),
}
SECOND_COST = "cpu_throughput"
NAMED_TIES = 3


@dataclass(frozen=True)
class Ranked:
    """One model's place: percent and its 95% interval; whether it is tied with the first, and on the Pareto front.

    None is what the row does not say.
    """

    model: str
    img_size: int | None
    accuracy: float
    low: float | None
    high: float | None
    dsmi_z_y: float | None
    cost: float | None
    tied_for_first: bool
    pareto: bool


@dataclass(frozen=True)
class Ranking:
    """All models, the best first; ``cost`` is the column that the Pareto front weighs accuracy against.

    ``second`` is the same ranking with the throughput on a CPU as the cost, where it is known and not the cost already.
    """

    models: tuple[Ranked, ...]
    cost: str | None
    second: "Ranking | None" = None

    def as_json(self) -> list[dict[str, Any]]:
        """The content of ``summary.json``'s ``ranking``."""
        entries = self._as_json()
        if self.second is not None:
            for entry, model in zip(entries, self.second.models, strict=True):
                entry["pareto_cpu"] = model.pareto
        return entries

    def _as_json(self) -> list[dict[str, Any]]:
        return [
            {
                "model": m.model,
                "img_size": m.img_size,
                "probe_accuracy": m.accuracy,
                "low": m.low,
                "high": m.high,
                "tied_for_first": m.tied_for_first,
                "pareto": m.pareto,
            }
            for m in self.models
        ]


def rank(rows: pd.DataFrame) -> Ranking:
    """Rank the measured models by the cross-validated accuracy of a linear probe.

    A model is tied for first unless McNemar's exact test on the same images tells it from the best one at 5% after
    Holm's correction over all models.

    References
    ----------
    McNemar (1947); Holm (1979).
    """
    rows = succeeded(rows)
    accuracy = np.where(rows["probe_hits"].notna(), values(rows, "probe_accuracy"), np.nan)
    rows = rows[np.isfinite(accuracy)]
    accuracy = accuracy[np.isfinite(accuracy)]
    order = np.argsort(-accuracy, kind="stable")
    rows, accuracy = rows.iloc[order], accuracy[order]
    cost = next((name for name in COSTS if np.isfinite(_prices(rows, name)).any()), None)
    tied = (
        tied_for_first([unpacked(text) for text in rows["probe_hits"]])
        if len(rows)
        else np.zeros(0, dtype=bool)
    )
    main = _ranking(rows, accuracy, tied, cost)
    if cost == SECOND_COST or not np.isfinite(_prices(rows, SECOND_COST)).any():
        return main
    return replace(main, second=_ranking(rows, accuracy, tied, SECOND_COST))


def _ranking(
    rows: pd.DataFrame, accuracy: np.ndarray, tied: np.ndarray, cost: str | None
) -> Ranking:
    """The ranking of ``rows``, which are in its order, by ``accuracy`` [n], with the front for one cost."""
    price = _prices(rows, cost) if cost else np.full(len(rows), np.nan)
    front = pareto_front(accuracy, price if cost and COSTS[cost][2] else -price)
    low, high, dsmi = (values(rows, name) for name in ("probe_low", "probe_high", "dsmi_z_y"))
    return Ranking(
        tuple(
            Ranked(
                named["model"],
                named["img_size"],
                float(accuracy[i]),
                _known(low[i]),
                _known(high[i]),
                _known(dsmi[i]),
                _known(price[i]),
                bool(tied[i]),
                bool(front[i]),
            )
            for i, named in enumerate(names(rows))
        ),
        cost,
    )


def _prices(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column of costs, [n]; nothing is free, so 0 and less are NaN."""
    numbers = values(rows, column)
    return np.where(numbers > 0, numbers, np.nan)


def tied_for_first(hits: list[np.ndarray]) -> np.ndarray:
    """Which models, each with its hits on the same images (bool [m]), the data cannot tell from the first."""
    p = mcnemar(hits[0], np.array(hits))
    rivals = np.argsort(p[1:], kind="stable") + 1
    tied = np.ones(len(hits), dtype=bool)
    for place, rival in enumerate(rivals):
        if p[rival] > LEVEL / (len(rivals) - place):
            break
        tied[rival] = False
    return tied


def mcnemar(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The p value [k] of McNemar's exact test of the hits of one model, bool [m], and each of others, bool [k, m]."""
    better = (one & ~others).sum(axis=1)
    worse = (others & ~one).sum(axis=1)
    tail = binom.cdf(np.minimum(better, worse), better + worse, 0.5)
    return np.asarray(np.minimum(2 * tail, 1))


def pareto_front(accuracy: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Which points no other one beats in both (bool [n]); points without a speed are on no front."""
    known = np.isfinite(speed)
    front = np.zeros(len(accuracy), dtype=bool)
    for i in np.flatnonzero(known):
        no_worse = known & (accuracy >= accuracy[i]) & (speed >= speed[i])
        better = no_worse & ((accuracy > accuracy[i]) | (speed > speed[i]))
        front[i] = not better.any()
    return front


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
