"""The page for choosing a model for one's own images: what it says first, the winners, and the ranking."""

from collections.abc import Collection
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.datasets.names import OWN_IMAGES
from dsmi_zoo.pipeline.store.record import RunRecord, SearchNote

from ..statistics.ranking import NAMED_TIES, Ranked, Ranking
from ..statistics.sample import names, succeeded, texts, values
from ..wording import cost_title, fixed, significant, with_unit

WINNERS = 5
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


SPEED_HERE = "speed_here"


def speeds_here(rows: pd.DataFrame) -> np.ndarray:
    """Return the images per second of each row's forward passes, [n]; NaN where no time was measured."""
    seconds = values(rows, "seconds_embed")
    return values(rows, "n_samples") / np.where(seconds > 0, seconds, np.nan)


def is_choice(run: RunRecord, ranking: Ranking, targets: Collection[str]) -> bool:
    """Return whether the page helps to choose a model: for the user's own images, or without known accuracies."""
    if run.config.random_weights or not ranking.models:
        return False
    dataset = run.config.subset.dataset
    return not targets or dataset in OWN_IMAGES or dataset.startswith("timm:")


def lead_of_choice(
    rows: pd.DataFrame, ranking: Ranking, search: SearchNote | None, measured: Collection[str]
) -> list[str]:
    """Return the opening sentences; that a budget was too short comes before all else."""
    dropped, untried = left_by_search(search, measured)
    sentences = []
    if untried:
        models = len(ranking.models) + dropped + untried
        sentences.append(
            f"The budget was too short to say which model suits best: {untried} of {models} were not tried. "
            "Run the same command with a longer --budget to continue."
        )
    sentences.append(ranking_lead(ranking))
    sentences += _static_choice(rows, ranking)
    if dropped:
        were = "was" if dropped == 1 else "were"
        sentences.append(f"{counted(dropped, 'more model')} {were} dropped after fewer images.")
    return sentences


def left_by_search(search: SearchNote | None, measured: Collection[str]) -> tuple[int, int]:
    """Return how many models a search dropped on the way, and how many it did not try."""
    if search is None:
        return 0, 0
    dropped = {entry.model for stage in search.stages for entry in stage.dropped} - set(measured)
    return len(dropped), len(set(search.left_out) - set(measured))


def _static_choice(rows: pd.DataFrame, ranking: Ranking) -> list[str]:
    """Say which model is the greatest in the first column of `STATIC_RANKERS` that two models or more have."""
    rows = succeeded(rows)
    ranked = {(m.model, m.img_size): m for m in ranking.models}
    keys = [(name["model"], name["img_size"]) for name in names(rows)]
    is_ranked = np.array([key in ranked for key in keys])
    for column, ranker in STATIC_RANKERS.items():
        known = np.where(is_ranked, values(rows, column), np.nan)
        if np.isfinite(known).sum() > 1:
            chosen = ranked[keys[int(np.nanargmax(known))]]
            which = f"{chosen.model}, which has {fixed(chosen.accuracy, 1)}% here"
            if chosen is ranking.models[0]:
                which = "the same model"
            return [
                f"By {ranker} alone, without looking at these images, one would choose {which}."
            ]
    return []


def winners(rows: pd.DataFrame, ranking: Ranking) -> dict[str, Any]:
    """Return the best model and those tied with it, at most five: their costs, and how Python loads each.

    Returns
    -------
    dict
        ``heads`` of the known costs, ``rows`` with cells in their order, and ``more``, the number of tied models
        beyond the five.
    """
    rows = succeeded(rows)
    tied = [model for model in ranking.models if model.tied_for_first]
    shown = tied[:WINNERS]
    place_of = {(name["model"], name["img_size"]): i for i, name in enumerate(names(rows))}
    places = [place_of[model.model, model.img_size] for model in shown]
    costs = {name: values(rows, name)[places] for name in COST_COLUMNS}
    costs[SPEED_HERE] = speeds_here(rows)[places]
    known_costs = [name for name, of_shown in costs.items() if np.isfinite(of_shown).any()]
    code = texts(rows, "loading_code")
    shown_rows = []
    for i, model in enumerate(shown):
        cells = [significant(float(costs[name][i])) for name in known_costs]
        shown_rows.append({**_cells(model), "costs": cells, "code": code[places[i]] or ""})
    titles = COST_COLUMNS | {SPEED_HERE: ("Measured here", "images/s")}
    heads = [with_unit(*titles[name]) for name in known_costs]
    return {"heads": heads, "rows": shown_rows, "more": len(tied) - len(shown)}


def _cells(model: Ranked) -> dict[str, Any]:
    return {
        "model": model.model,
        "size": fixed(model.img_size, 0),
        "accuracy": fixed(model.accuracy, 1),
        "ci": f"{fixed(model.low, 1)} to {fixed(model.high, 1)}",
    }


def ranking_table(ranking: Ranking, rows: pd.DataFrame) -> dict[str, Any]:
    """Return every model by its probe accuracy: the heads of the costs, and ``rows``."""
    second = ranking.second
    measured = succeeded(rows)
    keys = [(name["model"], name["img_size"]) for name in names(measured)]
    speed_of = dict(zip(keys, speeds_here(measured).tolist(), strict=True))
    table = []
    for model, other in zip_longest(ranking.models, second.models if second else ()):
        notes = []
        if model.tied_for_first:
            notes.append("tied for first")
        if model.pareto:
            notes.append("Pareto front")
        if other is not None and other.pareto:
            notes.append("Pareto front on a CPU")
        table.append(
            {
                **_cells(model),
                "speed": significant(speed_of[model.model, model.img_size]),
                "dsmi": fixed(model.dsmi_z_y),
                "cost": significant(model.cost),
                "second_cost": significant(other.cost) if other is not None else "",
                "notes": ", ".join(notes),
            }
        )
    cost = cost_title(ranking.cost) if ranking.cost else ""
    second_cost = cost_title(second.cost) if second and second.cost else ""
    return {
        "cost": cost,
        "second_cost": second_cost,
        "devices": devices_of(measured),
        "rows": table,
    }


def devices_of(rows: pd.DataFrame) -> str:
    """Return the devices that computed the rows, in words."""
    return " or ".join(sorted(filter(None, set(texts(rows, "device")))))


def ranking_lead(ranking: Ranking) -> str:
    """Return the ranking in one sentence."""
    if not ranking.models:
        return "No model has a probe accuracy."
    first, *tied = [m for m in ranking.models if m.tied_for_first]
    of = f"Of {len(ranking.models)} models, " if len(ranking.models) > 1 else "The one model, "
    at = "" if first.img_size is None else f" at {first.img_size} pixels"
    return (
        f"{of}{first.model}{at} has the highest cross-validated "
        f"probe accuracy, {fixed(first.accuracy, 1)}% ({fixed(first.low, 1)} to {fixed(first.high, 1)}); {_ties(tied)}."
    )


def _ties(tied: list[Ranked]) -> str:
    if not tied:
        return "no other is tied with it"
    parts = [model.model for model in tied[:NAMED_TIES]]
    if len(tied) > NAMED_TIES:
        parts.append(f"{len(tied) - NAMED_TIES} more")
    if len(parts) == 1:
        return f"{parts[0]} is tied with it"
    return f"{', '.join(parts[:-1])} and {parts[-1]} are tied with it"
