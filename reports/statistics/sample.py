"""The rows and columns of the statistics: the sample, its families, its scores and its targets."""

from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import natural_order
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, MEASURES, SENSIBLE_DISTANCES, Score
from dsmi_zoo.pipeline.store.schema import COLUMN_NAMES, is_accuracy, target_unit

PRIMARY_MEASURE = "dsmi_z_y"
PRIMARY_TARGET = "top1"
"""The one primary hypothesis, stated before any run on ImageNet: Spearman's correlation of DSMI(Z;Y) with top-1
accuracy under the standard protocol. Everything else is exploratory."""

BASELINES: tuple[Score, ...] = (
    Score("log10_params", "log10 parameters", "", "Size of the model: no embedding needed."),
    Score("embedding_dim", "Embedding dimension", "", "Columns of the embedding: no image needed."),
    Score("log10_gmacs", "log10 GMACs", "", "Multiply-adds of one image: no embedding needed."),
    Score("img_size", "Image size", "pixels", "Side of the input: no embedding needed."),
    Score("extra_data", "Extra pretraining data", "", "Pretrained on more than ImageNet-1k."),
    Score("log10_pretraining_images", "log10 pretraining images", "", "Images of pretraining."),
    Score("subset_top1", "Subset top-1", "%", "The model's own classifier on the subset."),
    Score(
        "nce",
        "NCE",
        "nats",
        "Labels given the model's own classifier: negative conditional entropy.",
    ),
    Score("leep", "LEEP", "nats", "Log probability of the labels by the model's own classifier."),
)
"""Scores that need no measure."""

CEILING = "subset_top1"
"""Accuracy itself, measured on a sample: an upper bound for the scores, not a rival."""

OF_CLASSIFIER = (CEILING, "nce", "leep")
"""Scores by the model's own classifier, which looks at the images."""

LOGARITHMS = {
    "log10_params": "params_m",
    "log10_gmacs": "gmacs",
    "log10_pretraining_images": "pretraining_images",
}
"""Scores that are the logarithm of a column."""

COSTS = {
    "throughput": ("published throughput", "images/s", True),
    "gmacs": ("GMACs", "", False),
    "params_m": ("parameters", "M", False),
    "cpu_throughput": ("published CPU throughput", "images/s", True),
}
"""Title, unit, and whether more is better."""

GREATEST = 1e100
"""Larger numbers count as missing, because their variances and products overflow."""

SAME_EVIDENCE = ("top1", "real_top1", "v2_top1", "a_clean_top1", "r_clean_top1")
"""Targets that count as one: top-1 accuracy with other labels, on another sample, or on 200 classes."""


def static_rankers(target: str) -> tuple[str, ...]:
    """Return the scores that look at no image; published top-1 is one unless the target is a similar accuracy."""
    static = tuple(score.name for score in BASELINES if score.name not in OF_CLASSIFIER)
    return static if target in (*SAME_EVIDENCE, "top5") else (*static, "top1")


def succeeded(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of measured entries."""
    return rows[rows["status"].eq("ok").fillna(False).astype(bool)]


def values(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column as float64 [n]; NaN if missing, infinite, beyond ``GREATEST`` or not a number."""
    if column in LOGARITHMS and column not in rows:
        numbers = values(rows, LOGARITHMS[column])
        return np.log10(numbers, out=np.full(len(rows), np.nan), where=numbers > 0)
    if column not in rows:
        return np.full(len(rows), np.nan)
    if rows[column].dtype == float:
        numbers = rows[column].to_numpy()
    else:
        converted = pd.to_numeric(rows[column], errors="coerce").astype("Float64")
        numbers = converted.to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.abs(numbers) <= GREATEST, numbers, np.nan)


def off_scale(rows: pd.DataFrame) -> np.ndarray:
    """Return whether sigma is wrong for the scale of each row's embedding, bool [n]; False where that is unknown."""
    low, high = SENSIBLE_DISTANCES
    distances = values(rows, "median_distance_over_sigma")
    return (distances < low) | (distances > high)


def texts(rows: pd.DataFrame, column: str) -> list[str | None]:
    """Return a column as text; None where it is empty."""
    if column not in rows:
        return [None] * len(rows)
    return [None if pd.isna(v) else str(v) for v in rows[column]]


def names(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return each row as {"model", "img_size"}."""
    sizes = values(rows, "img_size")
    return [
        {"model": str(model), "img_size": int(size) if np.isfinite(size) else None}
        for model, size in zip(rows["model"], sizes, strict=True)
    ]


def labels(rows: pd.DataFrame) -> list[str]:
    """Return each row's ``model@size``; the model's name alone where the size is unknown."""
    named = names(rows)
    return [
        one["model"] if one["img_size"] is None else f"{one['model']}@{one['img_size']}"
        for one in named
    ]


def scores_of(rows: pd.DataFrame) -> list[str]:
    """Return the scores with a value in a measured row: measures, comparisons, the user's own, then baselines."""
    rows = succeeded(rows)
    ours = [m.name for m in (*MEASURES, *COMPARISONS)]
    measured = (*ours, *own_scores(rows))
    scores = [name for name in measured if np.isfinite(values(rows, name)).any()]
    if not scores:
        return []
    return scores + [m.name for m in BASELINES if np.isfinite(values(rows, m.name)).any()]


def own_scores(rows: pd.DataFrame) -> list[str]:
    """Return the names of the user's own scores, with or without values."""
    own = {name for text in texts(rows, "own_measures") if text for name in text.split()}
    return sorted(own - COLUMN_NAMES)


def sign_of(score: str) -> int:
    """Return 1, or -1 if a lower score is better."""
    return -1 if any(m.name == score and m.lower_is_better for m in COMPARISONS) else 1


def targets_of(rows: pd.DataFrame) -> list[str]:
    """Return the targets with a value in a measured row: top-1, top-5, other accuracies, then effective robustness."""
    rows = succeeded(rows)
    targets = [str(c) for c in rows.columns if target_unit(str(c)) is not None]
    columns = sorted(targets, key=lambda c: (c != "top1", c != "top5", not is_accuracy(c), c))
    return [name for name in columns if np.isfinite(values(rows, name)).any()]


def known_number(value: float) -> float | None:
    """Return a number, or None for one that is not finite."""
    return float(value) if np.isfinite(value) else None


def networks_of(rows: pd.DataFrame) -> list[str]:
    """Return the identity of each row's network; in rows of earlier versions, that of the embedding."""
    both = zip(texts(rows, "network_id"), texts(rows, "embedding_id"), strict=True)
    return [network or own or f"row {i}" for i, (network, own) in enumerate(both)]


def further_layers(rows: pd.DataFrame) -> np.ndarray:
    """Return which rows are further layers of a network and so not separate models, bool [n].

    The network's own row is that of its penultimate layer or, if it has none, of its deepest one.
    """
    layers, networks = texts(rows, "layer"), networks_of(rows)
    depth = np.nan_to_num(values(rows, "layer_depth"), nan=-1.0)
    own: dict[str, int] = {}
    for i, network in enumerate(networks):
        known = own.setdefault(network, i)
        if layers[known] is not None and (layers[i] is None or depth[i] > depth[known]):
            own[network] = i
    return np.array(
        [layers[i] is not None and own[network] != i for i, network in enumerate(networks)],
        dtype=bool,
    )


def own_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without further layers: one for each entry that is a model."""
    return rows[~further_layers(rows)]


def one_row_per_weights(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the measured rows, each model only at its smallest image size, the one at which it was trained.

    A network with rows of several layers is represented by its own row only.
    """
    rows = succeeded(own_rows(rows))
    order = np.argsort(np.nan_to_num(values(rows, "img_size")), kind="stable")
    first = rows.iloc[order].drop_duplicates("model")
    return rows[rows.index.isin(first.index)]


def families_of(rows: pd.DataFrame) -> tuple[str, pd.Series]:
    """Return the column that groups dependent rows, and each row's family; a row without one is its own family.

    Models of one timm module share a design. In a zoo whose entries are grouped (digits: by training budget), an
    architecture occurs once per group, and its rows are a family.
    """
    has_families = "family" in rows and not rows["family"].isna().all()
    column = "family" if has_families and not groups_of(rows) else "architecture"
    models = rows["model"].astype(object)
    if column not in rows:
        return "model", models
    return column, rows[column].astype(object).where(rows[column].notna(), models)


def effective_number(families: pd.Series | np.ndarray) -> float:
    """Return the effective number of families: the square of n over the sum of squared sizes (Kish, 1965)."""
    sizes = pd.Series(np.asarray(families, dtype=object)).value_counts().to_numpy(dtype=float)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def groups_of(rows: pd.DataFrame) -> list[str]:
    """Return the names of the groups of measured rows in natural order; a single group counts as none."""
    rows = succeeded(rows)
    if "group" not in rows:
        return []
    groups = {str(g) for g in rows["group"].dropna() if str(g).strip()}
    return sorted(groups, key=natural_order) if len(groups) > 1 else []
