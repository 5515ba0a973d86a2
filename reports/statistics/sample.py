"""Which rows and columns the statistics are about: the sample, its families, its scores and its targets."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import as_people_sort
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, MEASURES, Score
from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.schema import COLUMN_NAMES, is_accuracy, target_unit

PRIMARY_MEASURE = "dsmi_z_y"
PRIMARY_TARGET = "top1"
"""The one primary hypothesis, stated before any run on ImageNet: Spearman's correlation of DSMI(Z;Y) with top-1
accuracy under the standard protocol. Everything else is exploratory."""

BASELINES: tuple[Score, ...] = (
    Score("log10_params", "log10 parameters", "", "Size of the model: no embedding needed."),
    Score("log10_gmacs", "log10 GMACs", "", "Multiply-adds of one image: no embedding needed."),
    Score("img_size", "Image size", "pixels", "Side of the input: no embedding needed."),
    Score(
        "extra_data",
        "Extra pretraining data",
        "",
        "Pretrained on more than ImageNet-1k: no embedding needed.",
    ),
    Score(
        "log10_pretraining_images",
        "log10 pretraining images",
        "",
        "Images of pretraining: no embedding needed.",
    ),
    Score("subset_top1", "Subset top-1", "%", "The model's own classifier on the subset."),
)
"""What one knows or can have without the measures."""

CEILING = "subset_top1"
"""Accuracy itself, measured on a sample: how closely any score can follow it, and no rival of the scores."""

LOGARITHMS = {
    "log10_params": "params_m",
    "log10_gmacs": "gmacs",
    "log10_pretraining_images": "pretraining_images",
}
"""Scores that are the logarithm of a row's column."""

GREATEST = 1e100
"""No measure comes near; of larger numbers variances and products overflow."""

SAME_EVIDENCE = ("top1", "real_top1", "v2_top1", "a_clean_top1", "r_clean_top1")
"""Targets that count as one: other labels, another sample, or 200 classes, of what top-1 accuracy measures."""


def static_rankers(target: str) -> tuple[str, ...]:
    """Scores that look at no image; published top-1 is one where the target is not that accuracy, or much like it."""
    static = tuple(score.name for score in BASELINES if score.name != CEILING)
    return static if target in (*SAME_EVIDENCE, "top5") else (*static, "top1")


def succeeded(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose entry was measured."""
    return rows[rows["status"].eq("ok").fillna(False).astype(bool)]


def values(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column as float64 [n]; what is missing, infinite, beyond ``GREATEST`` or no number is NaN."""
    if column in LOGARITHMS and column not in rows:
        numbers = values(rows, LOGARITHMS[column])
        return np.log10(numbers, out=np.full(len(rows), np.nan), where=numbers > 0)
    if column not in rows:
        return np.full(len(rows), np.nan)
    if rows[column].dtype == float:
        numbers = rows[column].to_numpy()
    else:
        numbers = (
            pd.to_numeric(rows[column], errors="coerce")
            .astype("Float64")
            .to_numpy(dtype=float, na_value=np.nan)
        )
    return np.where(np.abs(numbers) <= GREATEST, numbers, np.nan)


def texts(rows: pd.DataFrame, column: str) -> list[str | None]:
    """A column as text; None where it is empty."""
    return (
        [None if pd.isna(v) else str(v) for v in rows[column]]
        if column in rows
        else [None] * len(rows)
    )


def names(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Each row as {"model", "img_size"}."""
    sizes = values(rows, "img_size")
    return [
        {"model": str(model), "img_size": int(size) if np.isfinite(size) else None}
        for model, size in zip(rows["model"], sizes, strict=True)
    ]


def scores_of(rows: pd.DataFrame) -> list[str]:
    """Columns of scores with a value in a measured row: measures, comparisons, the user's own, then baselines."""
    rows = succeeded(rows)
    own = sorted(
        {name for text in texts(rows, "own_measures") if text for name in text.split()}
        - COLUMN_NAMES
    )
    ours = [m.name for m in (*MEASURES, *COMPARISONS)]
    scores = [name for name in (*ours, *own) if np.isfinite(values(rows, name)).any()]
    return scores + [
        m.name for m in BASELINES if scores and np.isfinite(values(rows, m.name)).any()
    ]


def sign_of(score: str) -> int:
    """1, or -1 for a score of which less is better."""
    return -1 if any(m.name == score and m.lower_is_better for m in COMPARISONS) else 1


def targets_of(rows: pd.DataFrame) -> list[str]:
    """Columns of targets with a value in a measured row: top-1, top-5, other accuracies, then effective robustness."""
    rows = succeeded(rows)
    targets = [str(c) for c in rows.columns if target_unit(str(c)) is not None]
    columns = sorted(targets, key=lambda c: (c != "top1", c != "top5", not is_accuracy(c), c))
    return [name for name in columns if np.isfinite(values(rows, name)).any()]


def one_row_per_weights(rows: pd.DataFrame) -> pd.DataFrame:
    """The measured rows without a model's further image sizes: the smallest, at which it was trained, stays."""
    rows = succeeded(rows)
    order = np.argsort(np.nan_to_num(values(rows, "img_size")), kind="stable")
    first = rows.iloc[order].drop_duplicates("model")
    return rows[rows.index.isin(first.index)]


def families_of(rows: pd.DataFrame) -> tuple[str, pd.Series]:
    """What makes rows dependent: the column's name, and each row's family; a row without one stands for itself.

    Models of one timm module share a design. In a zoo whose entries are grouped (digits: by training budget) an
    architecture stands there once a group, and those rows belong together.
    """
    column = (
        "architecture"
        if groups_of(rows) or "family" not in rows or rows["family"].isna().all()
        else "family"
    )
    models = rows["model"].astype(object)
    if column not in rows:
        return "model", models
    return column, rows[column].astype(object).where(rows[column].notna(), models)


def effective_number(families: pd.Series | np.ndarray) -> float:
    """How many equally large families would be as many: the square of n over the sum of squared sizes (Kish, 1965)."""
    sizes = pd.Series(np.asarray(families, dtype=object)).value_counts().to_numpy(dtype=float)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def groups_of(rows: pd.DataFrame) -> list[str]:
    """The names of the groups among measured rows, numbers in them ordered as numbers; fewer than two are none."""
    rows = succeeded(rows)
    groups = (
        {str(g) for g in rows["group"].dropna() if str(g).strip()} if "group" in rows else set()
    )
    return sorted(groups, key=as_people_sort) if len(groups) > 1 else []


def missing_entries(rows: pd.DataFrame, planned: Iterable[EntryRecord]) -> list[dict[str, Any]]:
    """The entries without a row, each {"model", "img_size"}."""
    there = {(e["model"], e["img_size"]) for e in names(rows)}
    missing = [entry for entry in planned if (entry.model, entry.img_size) not in there]
    return [{"model": entry.model, "img_size": entry.img_size} for entry in missing]
