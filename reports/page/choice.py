"""The page that answers which model suits one's own images: what it says first, and how to load the winners."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.store.record import RunRecord, SearchNote

from ..statistics.ranking import Ranked, Ranking
from ..statistics.sample import names, succeeded, texts, values
from ..wording import fixed, significant, with_unit
from .ranking import ranking_lead

WINNERS = 5
OWN_IMAGES = ("imagefolder", "csv")
"""The user's own data sets, beside those named ``timm:NAME``."""
STATIC_RANKERS = {
    "top1": "published top-1 accuracy",
    "gmacs": "GMACs",
    "params_m": "number of parameters",
}
COST_COLUMNS = {
    "params_m": ("Parameters", "M"),
    "gmacs": ("GMACs", ""),
    "throughput": ("GPU throughput", "images/s"),
    "cpu_throughput": ("CPU throughput", "images/s"),
}


@dataclass(frozen=True)
class StaticChoice:
    """The model that one would take without a look at the images: the greatest by a column of the catalogue."""

    ranker: str
    model: str
    img_size: int | None
    accuracy: float


def is_choice(run: RunRecord, ranking: Ranking, targets: Collection[str]) -> bool:
    """Whether the page helps to choose a model: the images are the user's own, or no accuracy is known."""
    if run.config.random_weights or not ranking.models:
        return False
    dataset = run.config.subset.dataset
    return not targets or dataset in OWN_IMAGES or dataset.startswith("timm:")


def lead_of_choice(
    rows: pd.DataFrame, ranking: Ranking, search: SearchNote | None, measured: Collection[str]
) -> list[str]:
    """The opening sentences of the page; that a budget was too short is said before all else."""
    dropped, untried = left_by_search(search, measured)
    everything = len(ranking.models) + dropped + untried
    said = [_on_short_budget(untried, everything)] if untried else []
    said.append(ranking_lead(ranking))
    static = static_choice(rows, ranking)
    if static is not None:
        said.append(_on_static_choice(static, ranking.models[0]))
    if dropped:
        were = "was" if dropped == 1 else "were"
        said.append(
            f"{counted(dropped, 'more model')} {were} tried on fewer images and went no further."
        )
    return said


def left_by_search(search: SearchNote | None, measured: Collection[str]) -> tuple[int, int]:
    """How many models a search dropped on the way, and how many never had a turn."""
    if search is None:
        return 0, 0
    dropped = {entry.model for stage in search.stages for entry in stage.dropped} - set(measured)
    return len(dropped), len(set(search.left_out) - set(measured))


def _on_short_budget(untried: int, everything: int) -> str:
    return (
        f"The budget was too short to say which model suits best: {untried} of {everything} never had a turn. "
        "The same command with a longer --budget goes on from here."
    )


def _on_static_choice(static: StaticChoice, first: Ranked) -> str:
    by = f"By {static.ranker} alone, without looking at these images, one would take "
    if (static.model, static.img_size) == (first.model, first.img_size):
        return f"{by}the same model."
    return f"{by}{static.model}, which has {fixed(static.accuracy, 1)}% here."


def static_choice(rows: pd.DataFrame, ranking: Ranking) -> StaticChoice | None:
    """The greatest in the first column of `STATIC_RANKERS` that two models or more have; None without one."""
    rows = succeeded(rows)
    accuracies = {(m.model, m.img_size): m.accuracy for m in ranking.models}
    keys = [(name["model"], name["img_size"]) for name in names(rows)]
    is_ranked = np.array([key in accuracies for key in keys])
    for column, ranker in STATIC_RANKERS.items():
        known = np.where(is_ranked, values(rows, column), np.nan)
        if np.isfinite(known).sum() > 1:
            taken = keys[int(np.nanargmax(known))]
            return StaticChoice(ranker, *taken, accuracies[taken])
    return None


def winners(rows: pd.DataFrame, ranking: Ranking) -> dict[str, Any]:
    """The best model and those tied with it, at most five: their costs, and how Python loads each.

    Returns
    -------
    dict
        ``heads`` of the costs that are known of any, ``rows`` with cells in their order, and ``more``, how many tied
        models are beyond the five.
    """
    rows = succeeded(rows)
    tied = [model for model in ranking.models if model.tied_for_first]
    shown = tied[:WINNERS]
    place_of = {(name["model"], name["img_size"]): i for i, name in enumerate(names(rows))}
    places = [place_of[model.model, model.img_size] for model in shown]
    costs = {name: values(rows, name)[places] for name in COST_COLUMNS}
    known_costs = [name for name, of_shown in costs.items() if np.isfinite(of_shown).any()]
    code = texts(rows, "loading_code")
    shown_rows = []
    for number, (model, place) in enumerate(zip(shown, places, strict=True)):
        shown_rows.append(
            {
                "model": model.model,
                "size": fixed(model.img_size, 0),
                "accuracy": fixed(model.accuracy, 1),
                "ci": f"{fixed(model.low, 1)} to {fixed(model.high, 1)}",
                "costs": [significant(float(costs[name][number])) for name in known_costs],
                "code": code[place] or "",
            }
        )
    heads = [with_unit(*COST_COLUMNS[name]) for name in known_costs]
    return {"heads": heads, "rows": shown_rows, "more": len(tied) - len(shown)}
