"""Which model to choose for one's own images: a ranking by the probe, ties, and what each costs."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from ..pipeline.measures.probe import unpacked
from ..pipeline.record import SearchNote
from .sample import names, succeeded, values
from .wording import fixed

LEVEL = 0.05
COSTS = {"throughput": ("published throughput", "images/s", True), "gmacs": ("GMACs", "", False),
         "params_m": ("parameters", "M", False)}  # fmt: skip


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
    """All models, the best first; ``cost`` is the column that the Pareto front weighs accuracy against."""

    models: tuple[Ranked, ...]
    cost: str | None

    def as_json(self) -> list[dict[str, Any]]:
        """The content of ``summary.json``'s ``ranking``."""
        return [
            {"model": m.model, "img_size": m.img_size, "probe_accuracy": m.accuracy, "low": m.low, "high": m.high,
             "tied_for_first": m.tied_for_first, "pareto": m.pareto}
            for m in self.models
        ]  # fmt: skip


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
    price = _prices(rows, cost) if cost else np.full(len(rows), np.nan)
    front = pareto_front(accuracy, price if cost and COSTS[cost][2] else -price)
    tied = tied_for_first([unpacked(text) for text in rows["probe_hits"]]) if len(rows) else np.zeros(0, dtype=bool)
    low, high, dsmi = (values(rows, name) for name in ("probe_low", "probe_high", "dsmi_z_y"))
    return Ranking(
        tuple(
            Ranked(
                named["model"], named["img_size"], float(accuracy[i]), _known(low[i]), _known(high[i]),
                _known(dsmi[i]), _known(price[i]), bool(tied[i]), bool(front[i]),
            )
            for i, named in enumerate(names(rows))
        ),
        cost,
    )  # fmt: skip


def _prices(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column of costs, [n]; nothing is free, so 0 and less are NaN."""
    numbers = values(rows, column)
    return np.where(numbers > 0, numbers, np.nan)


def tied_for_first(hits: list[np.ndarray]) -> np.ndarray:
    """Which models, each with its hits on the same images (bool [m]), the data cannot tell from the first."""
    best = hits[0]
    p = np.array([_mcnemar(best, other) for other in hits])
    rivals = np.argsort(p[1:], kind="stable") + 1
    tied = np.ones(len(hits), dtype=bool)
    for place, rival in enumerate(rivals):
        if p[rival] > LEVEL / (len(rivals) - place):
            break
        tied[rival] = False
    return tied


def _mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    better, worse = int((one & ~other).sum()), int((other & ~one).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def pareto_front(accuracy: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Which points no other one beats in both (bool [n]); points without a speed are on no front."""
    known = np.isfinite(speed)
    front = np.zeros(len(accuracy), dtype=bool)
    for i in np.flatnonzero(known):
        no_worse = known & (accuracy >= accuracy[i]) & (speed >= speed[i])
        better = no_worse & ((accuracy > accuracy[i]) | (speed > speed[i]))
        front[i] = not better.any()
    return front


def lead(ranking: Ranking) -> str:
    """The ranking in one sentence."""
    if not ranking.models:
        return "No model has a probe accuracy."
    first, others = ranking.models[0], sum(m.tied_for_first for m in ranking.models) - 1
    ties = {0: "no other is tied with it", 1: "1 other is tied with it"}.get(
        others, f"{others} others are tied with it"
    )
    of = f"Of {len(ranking.models)} models, " if len(ranking.models) > 1 else "The one model, "
    at = "" if first.img_size is None else f" at {first.img_size} pixels"
    return (
        f"{of}{first.model}{at} has the highest cross-validated "
        f"probe accuracy, {fixed(first.accuracy, 1)}% ({fixed(first.low, 1)} to {fixed(first.high, 1)}); {ties}."
    )


def lead_of_search(note: SearchNote | None, measured: Collection[str]) -> list[str]:
    """What the ranking's sentence must not hide: how many models were dropped or never tried, and are not measured."""
    if not note:
        return []
    dropped = {entry.model for stage in note.stages for entry in stage.dropped} - set(measured)
    beyond = set(note.left_out) - set(measured)
    if not dropped and not beyond:
        return []
    return [
        f"They are what a search on a budget of time left: {len(dropped)} more were measured on fewer images and "
        f"dropped, {len(beyond)} were beyond the budget."
    ]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
