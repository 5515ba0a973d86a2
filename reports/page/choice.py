"""The page for choosing a model for one's own images: its opening sentences, the winners, and the ranking."""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.datasets.names import OWN_IMAGES
from dsmi_zoo.pipeline.config.run import Metric
from dsmi_zoo.pipeline.measures.catalog import UNDEFINED, parse_reasons
from dsmi_zoo.pipeline.store.record import RunRecord, SearchHistory, SubsetRecord

from ..statistics.ranking import Ranked, Ranking, Separation
from ..statistics.sample import names, succeeded, texts, values
from ..wording import cost_title, fixed, significant, with_unit

WINNERS = 5
TOO_MANY = 100  # a forecast of more than this many times the images is not given as a number
NAMED = 4  # tied models listed by name
CHEAPEST = (
    ("smallest", "params_m", 1),
    ("fastest", "throughput", -1),
    ("fastest", "cpu_throughput", -1),
)
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
    if run.config.random_weights:
        return False
    dataset = run.config.subset.dataset
    if dataset in OWN_IMAGES or dataset.startswith("timm:"):
        return True
    return bool(ranking.models) and not targets


def lead_of_choice(
    rows: pd.DataFrame, ranking: Ranking, run: RunRecord, measured: Collection[str]
) -> list[str]:
    """Return the opening sentences, beginning with the one on a budget that was too short, if it was."""
    dropped, untried = left_by_search(run.search, measured)
    sentences = []
    if untried:
        models = len(ranking.models) + dropped + untried
        sentences.append(
            f"The budget was too short to say which model suits best: {untried} of {models} were not tried. "
            "Run the same command with a longer --budget to continue."
        )
    baseline = ranking.quantity.baseline
    sentences.append(ranking_lead(rows, ranking, run))
    if baseline is not None and ranking.models:
        sentences.append(f"Baseline: always naming the largest class {_is_right(ranking)}.")
    sentences += _static_choice(rows, ranking)
    if dropped:
        were = "was" if dropped == 1 else "were"
        sentences.append(f"{counted(dropped, 'more model')} {were} dropped after fewer images.")
    return sentences


def _is_right(ranking: Ranking) -> str:
    """Return the predicate of the sentence on the baseline: the accuracy of always naming the largest class."""
    baseline = f"{fixed(ranking.quantity.baseline, 1)}%"
    if ranking.metric == "accuracy":
        return f"is right for {baseline}"
    return f"has a balanced accuracy of {baseline}"


def left_by_search(search: SearchHistory | None, measured: Collection[str]) -> tuple[int, int]:
    """Return how many models a search dropped on the way, and how many it did not try."""
    if search is None:
        return 0, 0
    dropped = {entry.model for stage in search.stages for entry in stage.dropped} - set(measured)
    return len(dropped), len(set(search.left_out) - set(measured))


def baseline_accuracy(subset: SubsetRecord, metric: Metric = "accuracy") -> float | None:
    """Return the value of always naming the largest class, in percent; None if its size was not recorded."""
    if metric == "balanced_accuracy":
        return 100 / subset.n_classes
    if subset.n_largest_class is None or not subset.n_images:
        return None
    return 100 * subset.n_largest_class / subset.n_images


def _static_choice(rows: pd.DataFrame, ranking: Ranking) -> list[str]:
    """Return a sentence on the model with the highest published top-1 accuracy, if at least two models have one."""
    known = _column(rows, ranking.models, "top1")
    if np.isfinite(known).sum() < 2:
        return []
    chosen = ranking.models[int(np.nanargmax(known))]
    which = f"{_label(chosen, ranking)}, which has {fixed(chosen.accuracy, 1)}% here"
    if chosen is ranking.models[0]:
        which = "the same model"
    if chosen in ranking.best and len(ranking.models) > 1 and chosen is not ranking.models[0]:
        which += ", one of them"
    return [f"By published top-1 accuracy alone, one would choose {which}."]


def _column(rows: pd.DataFrame, models: Sequence[Ranked], column: str) -> np.ndarray:
    """Return a column for some of the ranked models, [k]; NaN where it is unknown."""
    rows = succeeded(rows)
    place_of = {(name["model"], name["img_size"]): i for i, name in enumerate(names(rows))}
    places = [place_of[model.model, model.img_size] for model in models]
    return values(rows, column)[places]


def _label(model: Ranked, ranking: Ranking) -> str:
    """Return a model's name, with its image size if it is ranked at several."""
    sizes = [other.img_size for other in ranking.models if other.model == model.model]
    return model.model if len(sizes) == 1 else f"{model.model} at {model.img_size} pixels"


def winners(rows: pd.DataFrame, ranking: Ranking) -> dict[str, Any]:
    """Return the best model and those tied with it, at most five: their costs, and how Python loads each.

    Returns
    -------
    dict
        ``heads`` of the known costs, ``rows`` with cells in their order, and ``more``, the number of tied models
        beyond the five.
    """
    rows = succeeded(rows)
    tied = ranking.best
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
    """Return the table of all models by decreasing accuracy: the column heads, and ``rows``."""
    second = ranking.second
    measured = succeeded(rows)
    keys = [(name["model"], name["img_size"]) for name in names(measured)]
    speed_of = dict(zip(keys, speeds_here(measured).tolist(), strict=True))
    table = []
    for model, other in zip_longest(ranking.models, second.models if second else ()):
        notes = []
        if model.tied_for_first:
            notes.append("tied for first")
        if not model.beats_baseline:
            notes.append("not shown to beat the baseline")
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
        "head": _head_of_accuracies(ranking),
        "metric": ranking.metric,
        "cost": cost,
        "second_cost": second_cost,
        "devices": devices_of(measured),
        "rows": table,
    }


def _head_of_accuracies(ranking: Ranking) -> str:
    """Return the head of the column that models are ranked by, with the baseline."""
    baseline = ranking.quantity.baseline
    beside = "" if baseline is None else f"; largest class: {fixed(baseline, 1)}"
    return f"{'Probe' if ranking.metric == 'accuracy' else 'Balanced probe'} (%{beside})"


def devices_of(rows: pd.DataFrame) -> str:
    """Return the devices that computed the rows, in words."""
    return " or ".join(sorted(filter(None, set(texts(rows, "device")))))


def ranking_lead(rows: pd.DataFrame, ranking: Ranking, run: RunRecord) -> str:
    """Return the recommendation: the winner, the smallest or fastest of the tied models, or no model."""
    subset = run.subset
    counts = f"{counted(subset.n_images, 'image')}, {counted(subset.n_classes, 'class')}"
    on = f"{run.config.subset.title} ({counts})"
    if not ranking.models:
        return _why_unranked(rows, on)
    first = ranking.models[0]
    best = ranking.best
    tied = [model for model in ranking.models if model.tied_for_first]
    title = ranking.quantity.title
    total = len(ranking.models)
    accuracy = f"{fixed(first.accuracy, 1)}%"
    if first.low is not None and first.high is not None:
        accuracy = f"{accuracy} ({fixed(first.low, 1)} to {fixed(first.high, 1)})"
    baseline = ranking.quantity.baseline
    if not best:
        of = f"none of {total} models is" if total > 1 else "the one model is not"
        return (
            f"On {on}, {of} shown to be better than always naming the largest class, {fixed(baseline, 1)}%: "
            f"the {title} of {'the best, ' if total > 1 else ''}{_label(first, ranking)}, is {accuracy}."
        )
    if total == 1:
        return f"On {on}, the one model, {first.model}, has a {title} of {accuracy}."
    if len(best) == 1 and len(tied) > 1:
        return (
            f"On {on}, {_label(best[0], ranking)} is the only one of {counted(len(tied), 'tied model')} that is shown "
            f"to be better than always naming the largest class, {fixed(baseline, 1)}%: its {title} is "
            f"{fixed(best[0].accuracy, 1)}%."
        )
    if len(best) == 1:
        than = "the other model" if total == 2 else f"each of the {total - 1} other models"
        return (
            f"On {on}, choose {_label(first, ranking)}: its {title}, {accuracy}, is higher than that of {than} "
            "by more than chance."
        )
    which = f"{len(best)} of {total} models" if len(best) < total else f"the {total} models"
    titles = title.replace("accuracy", "accuracies")
    sentences = [
        f"On {on}, {which} cannot be told apart by their {titles}: {_listed(best, ranking)}.",
        *_cheapest(rows, best, ranking),
    ]
    if ranking.separation is not None:
        sentences.append(_separated(ranking, ranking.separation, subset))
    return " ".join(sentences)


def _why_unranked(rows: pd.DataFrame, on: str) -> str:
    measured = succeeded(rows)
    if not len(measured):
        return (
            f"On {on}, none of {counted(len(rows), 'model')} was measured, so none can be chosen."
        )
    reasons = [parse_reasons(text or "") for text in texts(measured, UNDEFINED)]
    given = Counter(of_row["probe_accuracy"] for of_row in reasons if "probe_accuracy" in of_row)
    reason = given.most_common(1)[0][0] if given else "its rows hold none"
    return f"On {on}, no model can be ranked, because no probe accuracy has a value: {reason}."


def _listed(models: Sequence[Ranked], ranking: Ranking) -> str:
    most = NAMED if len(models) > NAMED + 1 else len(models)
    parts = [f"{_label(m, ranking)} ({fixed(m.accuracy, 1)}%)" for m in models[:most]]
    if len(models) > most:
        parts.append(f"{len(models) - most} more")
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _cheapest(rows: pd.DataFrame, tied: Sequence[Ranked], ranking: Ranking) -> list[str]:
    """Return a sentence on the smallest and the fastest of the tied models, by costs that are known for all of them."""
    best: dict[str, list[str]] = {}
    for word, column, sign in CHEAPEST:
        cost = sign * _column(rows, tied, column)
        if (
            word not in {known for words in best.values() for known in words}
            and np.isfinite(cost).all()
        ):
            model = _label(tied[int(cost.argmin())], ranking)
            best.setdefault(model, []).append(word)
    said = [f"the {' and '.join(words)} of them is {model}" for model, words in best.items()]
    text = "; ".join(said)
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def _separated(ranking: Ranking, between: Separation, subset: SubsetRecord) -> str:
    """Return a sentence on how many more images per class would separate the tied models, or why that is unknown."""
    if between.is_same_images:
        return "All are right on the same images, so only other images can separate them."
    if between.images is None:
        return "Their accuracies are equal, so the number of images that would separate them is unknown."
    if between.images > TOO_MANY * subset.n_images:
        return f"To separate them would take over {TOO_MANY} times as many images."
    more = max(1, (between.images - subset.n_images) / subset.n_classes)
    rounded = float(f"{more:.2g}")
    tied = [model for model in ranking.models if model.tied_for_first]
    best = sum(model.accuracy == tied[0].accuracy for model in tied)
    whom = "the best from the others" if len(tied) > 2 else "them"
    if best > 1:
        whom = f"the {best} best, which are equally accurate, from the others"
    return f"About {rounded:,.0f} more images per class would separate {whom}."


def undefined_table(
    rows: pd.DataFrame, only: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Return each reason why scores have no value, the most frequent first, with its scores and number of models.

    ``only`` restricts it to some scores.
    """
    scores: dict[str, dict[str, None]] = {}
    models: Counter[str] = Counter()
    for text in texts(succeeded(rows), UNDEFINED):
        of_row = parse_reasons(text or "")
        of_row = {name: why for name, why in of_row.items() if only is None or name in only}
        models.update(set(of_row.values()))
        for score, reason in of_row.items():
            scores.setdefault(reason, {})[score] = None
    return [
        {"scores": ", ".join(scores[reason]), "models": count, "reason": reason}
        for reason, count in models.most_common()
    ]
