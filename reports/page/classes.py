"""Accuracy per class, and confusions; images that the best models disagree on, or that no model recognises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.hits import unpack_hits
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.scores.probe import predicted
from dsmi_zoo.pipeline.store.embedding_file import embedding_path, read_embedding
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.subset_file import read_subset

from ..statistics.classes import (
    ClassAccuracy,
    Images,
    JudgedImages,
    class_accuracies,
    confusion,
    images_of,
    judge_images,
    most_confused,
)
from ..statistics.ranking import Quantity, Ranked, Ranking
from ..statistics.sample import names, succeeded
from ..wording import fixed, interval
from .choice import baseline_accuracy
from .rendering import AnyCell, Table, table_of_words

FEW = 20  # up to this many classes, all are shown
WORST = 10
MAY_DIFFER = 0.01  # largest accepted share of images whose recomputed hits differ
MOST_WORK = 1e11  # n d min(n, d) of the probes for the confusions: some ten seconds of two cores
SHOWN = 10
Thumbnails = Callable[[Sequence[str]], dict[str, str]]
"""Function that returns the data URIs of images by their names, without those that cannot be read."""


@dataclass(frozen=True)
class ModelResults:
    """One model's results by class: its accuracy in each class, and its confusions or why there are none.

    ``taken_for`` is the class the probe predicts for each image, int64 [m]; ``matrix`` is the confusion matrix [k, k].
    """

    name: str
    row: Mapping[str, Any]
    accuracies: list[ClassAccuracy]
    taken_for: np.ndarray | None = None
    matrix: np.ndarray | None = None
    why: str = ""


def per_class(
    rows: pd.DataFrame, run: RunRecord, best: list[Ranked], folder: Path, *, recompute: bool
) -> tuple[Images, list[ModelResults]] | None:
    """Return the images, and the results of the ``best`` models by the hits in their rows; None if the images are lost.

    Parameters
    ----------
    folder
        The run's OUT, or a published folder: where ``subset.parquet`` is.
    recompute
        Whether to compute the confusions, which rows do not hold, from the kept embeddings by the same probe.
    """
    try:
        subset = read_subset(folder)
    except InputError:
        return None
    images = images_of(subset, run.subset.classes)
    ok = succeeded(rows)
    place_of = {(name["model"], name["img_size"]): i for i, name in enumerate(names(ok))}
    models: list[ModelResults] = []
    for one in best:
        cells = ok.iloc[place_of[one.model, one.img_size]].items()
        row = {str(name): value for name, value in cells}
        hits = unpack_hits(row["probe_hits"])
        if len(hits) != len(images.classes):
            return None
        size = "" if one.img_size is None else f"@{one.img_size}"
        models.append(ModelResults(f"{one.model}{size}", row, class_accuracies(hits, images)))
    if not recompute:
        return images, models
    done = np.cumsum([_work(model) for model in models])
    found = int((done <= MOST_WORK).sum())
    return images, [
        _with_confusion(model, run, subset, images, folder)
        if i < found
        else replace(model, why="the probe of so large an embedding would take too long")
        for i, model in enumerate(models)
    ]


def image_names(folder: Path) -> list[str]:
    """Return the names of a run's images, in the order of the hits in its rows."""
    names: list[str] = read_subset(folder)["image"].drop_duplicates().astype(str).tolist()
    return names


def quantity_of(rows: pd.DataFrame, run: RunRecord, folder: Path | None) -> Quantity:
    """Return the quantity that a run's models are ranked by; accuracy if the images' classes are needed and lost."""
    metric, by_accuracy = run.config.metric, Quantity(baseline=baseline_accuracy(run.subset))
    if metric == "accuracy" or folder is None:
        return by_accuracy
    try:
        classes = images_of(read_subset(folder), run.subset.classes).classes
    except InputError:
        return by_accuracy
    lengths = {int(text.partition(":")[0]) for text in succeeded(rows)["probe_hits"].dropna()}
    if lengths - {len(classes)}:
        return by_accuracy
    return Quantity(metric, classes, baseline_accuracy(run.subset, metric))


def _work(model: ModelResults) -> float:
    n, d = float(model.row["n_samples"]), float(model.row["embedding_dim"])
    return n * d * min(n, d)


def _with_confusion(
    model: ModelResults, run: RunRecord, subset: pd.DataFrame, images: Images, folder: Path
) -> ModelResults:
    slugs = {entry.row_id: entry.slug for entry in run.entries}
    path = embedding_path(run.embeddings_from or folder, slugs[model.row["row_id"]])
    if not path.is_file():
        return replace(model, why="its embedding was dropped")
    try:
        Z = read_embedding(path, model.row["embedding_sha256"])
    except InputError as error:
        return replace(model, why=str(error))
    found = predictions(Z, subset, images)
    differ = int(((found == images.classes) != unpack_hits(model.row["probe_hits"])).sum())
    # Machines add in different orders, so an image at a decision boundary may change class.
    if differ > MAY_DIFFER * len(found):
        return replace(
            model, why=f"its embedding gives other hits than its row for {differ} images"
        )
    return replace(model, taken_for=found, matrix=confusion(found, images))


def predictions(Z: np.ndarray, subset: pd.DataFrame, images: Images) -> np.ndarray:
    """Return the class that the ridge probe predicts for each image without having seen it, int64 [m]."""
    labels = subset["label"].to_numpy()
    context = MeasureContext(Z, labels, subset["image"].to_numpy(), None, MeasureSettings())
    codes = np.unique(labels, return_inverse=True)[1]
    code_of = np.zeros(len(images.names), dtype=np.int64)
    code_of[context.classes] = codes  # the context numbers classes in order of appearance
    votes = np.zeros((len(images.classes), len(images.names)), dtype=np.int64)
    np.add.at(votes, (context.images, code_of[predicted(context)]), 1)
    return votes.argmax(axis=1)


def class_context(images: Images, models: list[ModelResults]) -> dict[str, Any]:
    """Return the template's variables: the table of accuracies, and for each model its confusions as a table."""
    return {
        "accuracies": _accuracy_table(images, models),
        "confusions": [
            {"model": model.name, "why": model.why, "table": _confusion_table(images, model)}
            for model in models
            if model.matrix is not None or model.why
        ],
        "has_confusions": any(model.matrix is not None for model in models),
        "is_matrix": len(images.names) <= FEW,
    }


def _accuracy_table(images: Images, models: list[ModelResults]) -> Table:
    best = models[0].accuracies
    order = sorted(range(len(best)), key=lambda i: best[i].value)
    shown = order if len(order) <= FEW else order[:WORST]
    rows: list[list[AnyCell]] = []
    for i in shown:
        cells: list[AnyCell] = [images.names[i], best[i].images]
        for model in models:
            accuracy = model.accuracies[i]
            cells.append((fixed(accuracy.value, 1), interval(accuracy.interval, 1)))
        rows.append(cells)
    note = ""
    if len(shown) < len(order):
        low, high = best[order[WORST]].value, best[order[-1]].value
        others = counted(len(order) - WORST, "other class")
        note = f"{others}: {fixed(low, 1)} to {fixed(high, 1)}% with {models[0].name}."
    heads = ["Class", "Images", *(model.name for model in models)]
    return table_of_words(None, heads, rows, note=note)


def _confusion_table(images: Images, model: ModelResults) -> Table | None:
    if model.matrix is None:
        return None
    if len(images.names) <= FEW:
        numbers = [str(i + 1) for i in range(len(images.names))]
        rows: list[list[AnyCell]] = []
        for i, of_class in enumerate(model.matrix):
            cells = [str(count) if count else "·" for count in of_class.tolist()]
            rows.append([f"{i + 1} {images.names[i]}", *cells])
        return table_of_words(None, ["Class", *numbers], rows)
    pairs: list[list[AnyCell]] = []
    for true, taken, count in most_confused(model.matrix, WORST):
        of = model.accuracies[true].images
        pairs.append([images.names[true], images.names[taken], f"{count} of {of}"])
    note = "" if pairs else "No image is taken for one of another class."
    return table_of_words(
        None, ["Class", "Taken for", "Images"], pairs, note=note, text_columns=(0, 1)
    )


def class_files(images: Images, models: list[ModelResults]) -> dict[str, pd.DataFrame]:
    """Return the tables that the page links to, by the name of their file."""
    accuracies, confused = [], []
    for model in models:
        for name, accuracy in zip(images.names, model.accuracies, strict=True):
            low, high = accuracy.interval
            of_class = {"model": model.name, "class": name, "images": accuracy.images}
            of_class |= {"correct": accuracy.correct, "accuracy": accuracy.value}
            accuracies.append({**of_class, "low": low, "high": high})
        if model.matrix is None:
            continue
        for true, taken in zip(*np.nonzero(model.matrix), strict=True):
            pair = {"class": images.names[true], "taken_for": images.names[taken]}
            pair |= {"images": int(model.matrix[true, taken])}
            confused.append({"model": model.name, **pair})
    files = {"classes.csv": pd.DataFrame(accuracies)}
    return files | ({"confusions.csv": pd.DataFrame(confused)} if confused else {})


def judged_images(
    rows: pd.DataFrame,
    ranking: Ranking,
    images: Images,
    models: Sequence[ModelResults],
    image_names: Sequence[str],
) -> JudgedImages | None:
    """Return the images with the models that recognise them; None if no model beats the baseline."""
    ok = succeeded(rows)
    place_of = {(name["model"], name["img_size"]): i for i, name in enumerate(names(ok))}
    able = [model for model in ranking.models if model.beats_baseline]
    if not able:
        return None
    packed = ok["probe_hits"].to_numpy()
    hits = np.array([unpack_hits(packed[place_of[one.model, one.img_size]]) for one in able])
    is_best = np.array([one.tied_for_first for one in able])
    return judge_images(images, image_names, hits, is_best, models[0].taken_for if models else None)


def images_context(found: JudgedImages, thumbnails: Thumbnails | None) -> dict[str, Any] | None:
    """Return the template's variables; None if there is no image to look at."""
    parts = [_part(found, found.disputed, "disputed"), _part(found, found.missed, "missed")]
    if thumbnails is not None:
        shown = [name for part in parts for name in part["names"]]
        uris = thumbnails(shown)
        for part in parts:
            part["thumbnails"] = [
                (uris[name], caption)
                for name, caption in zip(part["names"], part["captions"], strict=True)
                if name in uris
            ]
    if not any(part["count"] for part in parts):
        return None
    best, models = (int(found.table[name].iloc[0]) for name in ("best", "models"))
    return {
        "disputed": parts[0],
        "missed": parts[1],
        "best": counted(best, "best model"),
        "models": counted(models, "model"),
    }


def _part(found: JudgedImages, places: np.ndarray, what: str) -> dict[str, Any]:
    shown = found.table.iloc[places[:SHOWN]]
    heads, rows = ["Image", "Class", "Taken for"], []
    if what == "disputed":
        heads.append("Best models right")
    for row in shown.to_dict("records"):
        taken_for = "" if row["taken_for"] == row["class"] else row["taken_for"]
        right = f"{row['best_right']} of {row['best']}"
        rows.append([row["image"], row["class"], taken_for, right][: len(heads)])
    return {
        "count": len(places),
        "table": table_of_words(None, heads, rows, text_columns=(0, 1, 2)),
        "names": [row[0] for row in rows],
        "captions": [_caption(*row) for row in rows],
        "thumbnails": [],
    }


def _caption(image: str, of_class: str, taken_for: str, right: str = "") -> str:
    taken = f", taken for {taken_for}" if taken_for else ""
    return f"{image}: {of_class}{taken}" + (f"; {right} right" if right else "")
