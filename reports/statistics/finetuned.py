"""The choice of the models to fine-tune, and their comparison after fine-tuning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo.pipeline.measures.core.hits import unpack_hits

from .correlation import holm
from .paired import two_sided_p
from .ranking import LEVEL, Quantity
from .sample import labels, own_rows, succeeded, values

STATIC = ("top1", "embedding_dim")
"""Columns by which one would choose without images; the first one known for at least two models is used."""


@dataclass(frozen=True)
class Finalist:
    """A model to be fine-tuned: its row's identity, its place in the ranking from 1 on, and its accuracy there (%).

    ``static`` is the column by which one would choose this model without images; None for all other models.
    """

    row_id: str
    name: str
    place: int
    probe: float
    static: str | None = None


def ranked_finalists(rows: pd.DataFrame, quantity: Quantity) -> list[Finalist]:
    """Return all models by decreasing ``quantity``; the choice of the static ranker is marked."""
    rows = succeeded(own_rows(rows))
    rows = rows[rows["probe_hits"].notna()]
    accuracy = np.array([quantity.value(unpack_hits(text)) for text in rows["probe_hits"]])
    order = np.argsort(-accuracy, kind="stable")
    rows, accuracy = rows.iloc[order], accuracy[order]
    column, chosen = _static_choice(rows)
    found = []
    for place, (name, row_id) in enumerate(zip(labels(rows), rows["row_id"], strict=True)):
        static = column if place == chosen else None
        probe = float(accuracy[place])
        found.append(Finalist(str(row_id), name, place + 1, probe, static))
    return found


def finalists(rows: pd.DataFrame, quantity: Quantity, top: int) -> list[Finalist]:
    """Return the ``top`` models of the ranking, and the choice of the static ranker if it is another one."""
    ranked = ranked_finalists(rows, quantity)
    return [one for one in ranked if one.place <= top or one.static is not None]


def _static_choice(rows: pd.DataFrame) -> tuple[str | None, int | None]:
    """Return the column and the place of the choice without images; ties go to the model that ranks higher."""
    for column in STATIC:
        known = values(rows, column)
        if np.isfinite(known).sum() >= 2:
            return column, int(np.nanargmax(known))
    return None, None


@dataclass(frozen=True)
class Tuned:
    """A finalist after fine-tuning: its accuracy (%) with the 95% interval over images, and its cost.

    ``spread`` is the standard deviation over trainings. ``p_holm`` is the p value of the exact paired test against the
    best, after Holm's correction over the others; None for the best.
    """

    finalist: Finalist
    accuracy: float
    low: float
    high: float
    spread: float | None
    minutes: float
    memory_gb: float
    p_holm: float | None


@dataclass(frozen=True)
class AfterTuning:
    """The fine-tuned models, the best first; those that failed, with the reason; the number of images held out.

    ``beats_baseline`` is whether the best is shown to beat always naming the largest class; True if that is unknown.
    """

    models: tuple[Tuned, ...]
    failed: tuple[tuple[str, str], ...]
    images: int
    trainings: int
    baseline: float | None
    beats_baseline: bool

    @property
    def best(self) -> Tuned:
        """The most accurate model."""
        return self.models[0]

    @property
    def tied(self) -> list[Tuned]:
        """The best, and those that are not shown to be worse."""
        return [one for one in self.models if one.p_holm is None or one.p_holm > LEVEL]

    @property
    def of_probe(self) -> Tuned:
        """The model that ranked highest before fine-tuning."""
        return min(self.models, key=lambda one: one.finalist.place)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the models for ``summary.json``."""
        return [
            {
                "model": one.finalist.name,
                "place_before": one.finalist.place,
                "static_choice": one.finalist.static is not None,
                "probe": one.finalist.probe,
                "finetuned": one.accuracy,
                "low": one.low,
                "high": one.high,
                "spread": one.spread,
                "p_holm": one.p_holm,
                "minutes": one.minutes,
                "peak_memory_gb": one.memory_gb,
            }
            for one in self.models
        ]


def after_tuning(
    rows: pd.DataFrame, finetuned: Mapping[str, Mapping[str, Any]], quantity: Quantity
) -> AfterTuning | None:
    """Compare the fine-tuned models by ``quantity`` on the images that they held out; return None if there are none.

    Parameters
    ----------
    rows
        The rows of the run.
    finetuned
        Rows of fine-tuned models by the ``row_id`` of the run's row; those of the commonest held-out images count.

    Notes
    -----
    All models hold out the same images in the same trainings, so the paired tests are those of the ranking.
    """
    known = {one.row_id: one for one in ranked_finalists(rows, quantity)}
    ours = {row_id: row for row_id, row in finetuned.items() if row_id in known}
    failed = tuple(
        (known[row_id].name, f"{row['error_type']}: {row['error_message']}")
        for row_id, row in ours.items()
        if row["status"] != "ok"
    )
    ok = {row_id: row for row_id, row in ours.items() if row["status"] == "ok"}
    if not ok:
        return None
    masks = [row["held_out"] for row in ok.values()]
    commonest = max(masks, key=masks.count)
    ok = {row_id: row for row_id, row in ok.items() if row["held_out"] == commonest}
    held = unpack_hits(commonest)
    classes = None if quantity.classes is None else quantity.classes[held]
    here = Quantity(quantity.metric, classes, quantity.baseline)
    hits = {row_id: unpack_hits(row["finetuned_hits"]) for row_id, row in ok.items()}
    order = sorted(ok, key=lambda row_id: (-here.value(hits[row_id]), known[row_id].place))
    weights = here.weights(int(held.sum()))
    p = two_sided_p(hits[order[0]], np.array([hits[row_id] for row_id in order]), weights)
    adjusted = holm({row_id: float(p[place]) for place, row_id in enumerate(order) if place})
    models = []
    for row_id in order:
        low, high = here.interval(hits[row_id])
        row = ok[row_id]
        spread = row["finetuned_spread"]
        models.append(
            Tuned(
                known[row_id],
                here.value(hits[row_id]),
                low,
                high,
                None if spread is None or not np.isfinite(spread) else float(spread),
                float(row["minutes"]),
                float(row["peak_memory_gb"]),
                adjusted.get(row_id),
            )
        )
    trainings = int(ok[order[0]]["trainings"])
    baseline = quantity.baseline
    cautious, _ = here.interval(hits[order[0]], LEVEL / len(order))
    beats = baseline is None or cautious > baseline
    return AfterTuning(tuple(models), failed, int(held.sum()), trainings, baseline, beats)
