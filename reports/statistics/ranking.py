"""Ranking of models for one's own images, by accuracy or balanced accuracy, with ties and costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from dsmi_zoo.pipeline.config.run import Metric
from dsmi_zoo.pipeline.measures.core.hits import unpack_hits, wilson_limits

from .paired import two_sided_p
from .sample import COSTS, known_number, names, own_rows, succeeded, values

TITLES: dict[Metric, str] = {
    "accuracy": "probe accuracy",
    "balanced_accuracy": "balanced probe accuracy",
}
LEVEL = 0.05
POWER = 0.8
SECOND_COST = "cpu_throughput"


@dataclass(frozen=True)
class Quantity:
    """The share of hits that models are ranked by, and the weights of images in it.

    Attributes
    ----------
    metric
        ``accuracy``: all images count the same. ``balanced_accuracy``: all classes do.
    classes
        The class of each image, int64 [m], numbered from 0; None if unknown, then only accuracy can be computed.
    baseline
        The value of always naming the largest class, in percent; None if unknown.
    """

    metric: Metric = "accuracy"
    classes: np.ndarray | None = None
    baseline: float | None = None

    @property
    def title(self) -> str:
        """Its name in a sentence."""
        return TITLES[self.metric]

    def weights(self, images: int) -> np.ndarray:
        """Return the weight of each of ``images`` images, float64 [m]; they add up to 1."""
        if self.metric == "accuracy":
            return np.full(images, 1 / images)
        assert self.classes is not None
        sizes = np.bincount(self.classes)
        return 1 / (np.count_nonzero(sizes) * sizes[self.classes])

    def value(self, hits: np.ndarray) -> float:
        """Return the value for a model's hits, bool [m], in percent."""
        if self.metric == "accuracy":
            return 100 * float(hits.mean())
        return 100 * float(self.weights(len(hits)) @ hits)

    def interval(self, hits: np.ndarray, level: float = 0.05) -> tuple[float, float]:
        """Return the limits of the interval of coverage 1 - ``level``, in percent.

        Wilson's for accuracy. For balanced accuracy, those of the classes combined by the distances of their limits
        from their estimates; with one class, or accuracy itself, they are Wilson's.

        References
        ----------
        Wilson (1927); Zou and Donner (2008), Construction of confidence limits about effect measures (MOVER).
        """
        if self.metric == "accuracy":
            of_class, n = np.array([hits.sum()]), np.array([len(hits)])
        else:
            assert self.classes is not None
            n = np.bincount(self.classes)
            of_class = np.bincount(self.classes, weights=hits)[n > 0]
            n = n[n > 0]
        share, value = of_class / n, (of_class / n).mean()
        low, high = wilson_limits(of_class, n, float(norm.isf(level / 2)))
        below = np.sqrt(((share - low) ** 2).sum()) / len(n)
        above = np.sqrt(((high - share) ** 2).sum()) / len(n)
        return max(0.0, 100 * float(value - below)), min(100.0, 100 * float(value + above))


ACCURACY = Quantity()
"""Accuracy on the images as they come, without a known baseline."""


@dataclass(frozen=True)
class Ranked:
    """One model: its accuracy (%) with a 95% interval, its cost, and whether it is tied for first or on the front.

    ``accuracy`` is what models are ranked by; ``beats_baseline`` is whether it is shown to be above that of always
    naming the largest class, and True if that is unknown. None means unknown.
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
    beats_baseline: bool = True


@dataclass(frozen=True)
class Separation:
    """The number of images that would separate the best model from those tied with it.

    ``images`` is the total number needed, None if every tied model has the best one's accuracy; ``is_same_images`` is
    whether all of them are right on the same images.
    """

    images: float | None
    is_same_images: bool


@dataclass(frozen=True)
class Ranking:
    """All models, the best first; ``cost`` is the column of the Pareto front of accuracy and cost.

    ``second`` is the same ranking with CPU throughput as the cost, if it is known and not already ``cost``;
    ``separation`` is None without ties, and where images count unequally; ``quantity`` is what models are ranked by.
    """

    models: tuple[Ranked, ...]
    cost: str | None
    second: "Ranking | None" = None
    separation: Separation | None = None
    quantity: Quantity = ACCURACY

    @property
    def metric(self) -> Metric:
        """The name of the quantity that models are ranked by."""
        return self.quantity.metric

    @property
    def best(self) -> list[Ranked]:
        """The models tied for first that are shown to be above the baseline: those to choose from."""
        return [model for model in self.models if model.tied_for_first and model.beats_baseline]

    def as_json(self) -> list[dict[str, Any]]:
        """Return the part ``ranking`` of ``summary.json``."""
        entries = []
        for i, m in enumerate(self.models):
            entry: dict[str, Any] = {"model": m.model, "img_size": m.img_size}
            value = "probe_accuracy" if self.metric == "accuracy" else self.metric
            entry |= {value: m.accuracy, "low": m.low, "high": m.high}
            entry |= {"tied_for_first": m.tied_for_first, "pareto": m.pareto}
            entry["beats_baseline"] = m.beats_baseline
            if self.second is not None:
                entry["pareto_cpu"] = self.second.models[i].pareto
            entries.append(entry)
        return entries


def rank(rows: pd.DataFrame, quantity: Quantity = ACCURACY) -> Ranking:
    """Rank the measured models by the cross-validated accuracy of a ridge probe, or by its balanced accuracy.

    A model is tied for first unless the exact paired test on the same images finds a difference from the best one at
    5% after Holm's correction over all models: McNemar's test for accuracy, for balanced accuracy the permutation test
    that swaps the two models image by image within the classes. A model beats the baseline if the lower limit of its
    interval, at 5% over all models, is above it.

    References
    ----------
    McNemar (1947); Holm (1979).
    """
    rows = succeeded(own_rows(rows))
    accuracy = np.where(rows["probe_hits"].notna(), values(rows, "probe_accuracy"), np.nan)
    rows = rows[np.isfinite(accuracy)]
    accuracy = accuracy[np.isfinite(accuracy)]
    hits = [unpack_hits(text) for text in rows["probe_hits"]]
    if quantity.metric != "accuracy":
        accuracy = np.array([quantity.value(of_model) for of_model in hits])
    order = np.argsort(-accuracy, kind="stable")
    rows, accuracy, hits = rows.iloc[order], accuracy[order], [hits[i] for i in order]
    tied = np.zeros(0, dtype=bool)
    if hits:
        tied = tied_for_first(hits, quantity.weights(len(hits[0])))
    between = None
    if quantity.metric == "accuracy":
        between = separation(
            [of_model for of_model, is_tied in zip(hits, tied, strict=True) if is_tied]
        )
    models = _models(rows, accuracy, hits, tied, quantity)
    cost = next((name for name in COSTS if np.isfinite(_prices(rows, name)).any()), None)
    ranked = Ranking(_with_cost(models, rows, cost), cost, quantity=quantity)
    second = None
    if cost != SECOND_COST and np.isfinite(_prices(rows, SECOND_COST)).any():
        second = replace(ranked, models=_with_cost(models, rows, SECOND_COST), cost=SECOND_COST)
    return replace(ranked, second=second, separation=between)


def _models(
    rows: pd.DataFrame,
    accuracy: np.ndarray,
    hits: list[np.ndarray],
    tied: np.ndarray,
    quantity: Quantity,
) -> list[Ranked]:
    """Return the models of ``rows``, which are in the ranking's order, without costs."""
    low, high, dsmi = (values(rows, name) for name in ("probe_low", "probe_high", "dsmi_z_y"))
    if quantity.metric != "accuracy":
        limits = np.array([quantity.interval(of_model) for of_model in hits]).reshape(-1, 2)
        low, high = limits[:, 0], limits[:, 1]
    baseline = -np.inf if quantity.baseline is None else quantity.baseline
    return [
        Ranked(
            **named,
            accuracy=float(accuracy[i]),
            low=known_number(low[i]),
            high=known_number(high[i]),
            dsmi_z_y=known_number(dsmi[i]),
            cost=None,
            tied_for_first=bool(tied[i]),
            pareto=False,
            beats_baseline=quantity.interval(hits[i], LEVEL / len(hits))[0] > baseline,
        )
        for i, named in enumerate(names(rows))
    ]


def _with_cost(
    models: Sequence[Ranked], rows: pd.DataFrame, cost: str | None
) -> tuple[Ranked, ...]:
    """Return the models of ``rows`` with one cost, and with the Pareto front for it."""
    price = _prices(rows, cost) if cost else np.full(len(rows), np.nan)
    accuracy = np.array([model.accuracy for model in models])
    front = pareto_front(accuracy, price if cost and COSTS[cost][2] else -price)
    return tuple(
        replace(model, cost=known_number(price[i]), pareto=bool(front[i]))
        for i, model in enumerate(models)
    )


def _prices(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column of costs, [n]; NaN unless positive."""
    numbers = values(rows, column)
    return np.where(numbers > 0, numbers, np.nan)


def tied_for_first(hits: list[np.ndarray], weights: np.ndarray | None = None) -> np.ndarray:
    """Return which models, each with its hits on the same images (bool [m]), may be as good as the first.

    ``weights`` is how much each image counts, [m]; None means all the same.
    """
    p = two_sided_p(hits[0], np.array(hits), np.ones(len(hits[0])) if weights is None else weights)
    rivals = np.argsort(p[1:], kind="stable") + 1
    tied = np.ones(len(hits), dtype=bool)
    for place, rival in enumerate(rivals):
        if p[rival] > LEVEL / (len(rivals) - place):
            break
        tied[rival] = False
    return tied


def separation(hits: list[np.ndarray]) -> Separation | None:
    """Return the images needed to separate the first model from the others, by their hits on the same images, bool [m].

    The level is that of Holm's correction for the first of them to be rejected. None without others.
    """
    if len(hits) < 2:
        return None
    first, others = hits[0], np.array(hits[1:])
    better = (first & ~others).sum(axis=1)
    worse = (others & ~first).sum(axis=1)
    level = LEVEL / len(others)
    needed = [
        images_to_separate(b, w, len(first), level)
        for b, w in zip(better.tolist(), worse.tolist(), strict=True)
        if b != w
    ]
    return Separation(max(needed, default=None), not (better.any() or worse.any()))


def images_to_separate(better: int, worse: int, images: int, level: float = LEVEL) -> float:
    """Return how many images McNemar's test needs to separate two models, with a power of 80%.

    Parameters
    ----------
    better, worse
        How many of ``images`` only the one, or only the other model gets right; their shares are taken as true.

    References
    ----------
    Connor (1987), Sample size for testing differences in proportions for the paired-sample design, equation 3.
    """
    disagree = (better + worse) / images
    difference = (better - worse) / images
    spread = norm.isf(level / 2) * np.sqrt(disagree)
    spread += norm.ppf(POWER) * np.sqrt(disagree - difference**2)
    return float((spread / difference) ** 2)


def pareto_front(accuracy: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Return which points no other point dominates (bool [n]); points without a speed are not on the front."""
    known = np.isfinite(speed)
    front = np.zeros(len(accuracy), dtype=bool)
    for i in np.flatnonzero(known):
        no_worse = known & (accuracy >= accuracy[i]) & (speed >= speed[i])
        better = no_worse & ((accuracy > accuracy[i]) | (speed > speed[i]))
        front[i] = not better.any()
    return front
