"""The columns of a row, declared once for files, report and docs, and functions that order rows and columns."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import is_accuracy, target_unit

from ..measures.catalog import COMPARISONS, MEASURES, ROW_MEASURES, UNDEFINED, Measure

__all__ = ["COLUMNS", "COLUMN_NAMES", "Column", "is_accuracy", "target_unit"]


ColumnKind = Literal["text", "integer", "number", "flag", "time"]
FIRST = ("model", "img_size", "status")
LOWER_IS_BETTER = frozenset(
    {
        *(score.name for score in (*MEASURES, *COMPARISONS) if score.lower_is_better),
        *("params_m", "gmacs", "seconds_build", "seconds_embed", "seconds_measure"),
    }
)
HIGHER_IS_BETTER = frozenset(
    {
        *(score.name for score in (*MEASURES, *COMPARISONS) if not score.lower_is_better),
        *("throughput", "cpu_throughput"),
    }
)


@dataclass(frozen=True)
class Column:
    """One column of a row: its name, kind of value, unit ("" where there is none) and meaning."""

    name: str
    kind: ColumnKind
    unit: str
    meaning: str


def _column_of(measure: Measure) -> Column:
    """Return the column that a measure fills."""
    kinds: dict[str, ColumnKind] = {"flag": "flag", "text": "text"}
    kind = kinds.get(measure.unit, "number")
    unit = measure.unit if kind == "number" else ""
    return Column(measure.name, kind, unit, measure.meaning)


# fmt: off
COLUMNS: tuple[Column, ...] = (
    Column("model", "text", "", "The entry's name in its catalogue."),
    Column("architecture", "text", "", "timm's name of the network; with a builder, as the catalogue calls it."),
    Column("builder", "text", "", "The catalogue's own code that made the network, `module:function`."),
    Column("layer", "text", "", "The layer whose output is the embedding, if not the penultimate one's."),
    Column("layer_depth", "number", "",
           "Where in a forward pass the layer ends: the share of the innermost modules that have run, 0 to 1."),
    Column("network_id", "text", "", "Identity of the network and its images: rows of its layers share it."),
    Column("pooling", "text", "", "How positions or tokens became one vector: timm's `global_pool` of the network."),
    Column("loading_code", "text", "", "Python that loads the network by timm, and makes the transform of its images."),
    Column("family", "text", "", "timm's module of the architecture: relatives share one."),
    Column("kind", "text", "",
           "What mixes the image's positions: `convolutional`, `transformer`, `hybrid` (both) or `MLP`."),
    Column("pretraining", "text", "", "timm's tag of the weights: how and on what they were trained."),
    Column("extra_data", "flag", "", "Whether the weights were trained on images beyond ImageNet-1k."),
    Column("license", "text", "", "License of the weights, where it is known."),
    Column("random_weights", "flag", "", "Whether the weights are random: a dry run."),
    Column("img_size", "integer", "pixels", "Side of the square input."),
    Column("group", "text", "",
           "Entries that the report also compares among themselves (digits: the training budget)."),
    Column("status", "text", "", "`ok` or `failed`."),
    Column("error_type", "text", "", "A failed entry's exception."),
    Column("error_message", "text", "", "A failed entry's message."),
    Column("n_samples", "integer", "images", "Rows of the embedding; each repeat of an image counts."),
    Column("n_classes", "integer", "", "Classes in the subset."),
    Column("embedding_dim", "integer", "", "Columns of the embedding, d."),
    *map(_column_of, ROW_MEASURES),
    Column("readings", "text", "", "How ambiguous input of this row was read."),
    Column(UNDEFINED, "text", "", "Scores that have no value for this embedding, each with the reason."),
    Column("own_measures", "text", "", "Names of the columns that `--measure` added, separated by spaces."),
    Column("own_measures_code", "text", "",
           "Code of those added to a finished row: `module:function:SHA-256`."),
    Column("sigma", "number", "", "Width of the Gaussian kernel that was used."),
    Column("t", "number", "", "Diffusion time: the power of the eigenvalues."),
    Column("repetitions", "integer", "", "Random subsets for each class of a mutual information."),
    Column("seed", "integer", "", "Seed of the random subsets and of the null."),
    Column("bins", "integer", "", "Bins for each dimension of the classic entropy."),
    Column("null_permutations", "integer", "", "Permutations of the labels behind `dsmi_z_y_null`."),
    Column("measure_method", "text", "",
           "How `dse_z` was computed: `exact` (all eigenvalues) or `lanczos` (estimated)."),
    Column("measure_precision", "text", "", "Floating-point format of the eigenvalues behind `dse_z`."),
    Column("subset_top1", "number", "%",
           "Top-1 accuracy of the model's own classifier on the subset; empty if the order of its outputs is open."),
    Column("nce", "number", "nats",
           "Negative conditional entropy of the labels given the classes that the model's own classifier predicts."),
    Column("nce_se", "number", "nats", "Standard error of `nce` over images."),
    Column("leep", "number", "nats",
           "Mean log probability of the labels, expected by the probabilities of the model's own classifier."),
    Column("leep_se", "number", "nats", "Standard error of `leep` over images."),
    Column("top1", "number", "%", "Published top-1 accuracy (digits: measured on the held-out test images)."),
    Column("top5", "number", "%", "Published top-5 accuracy."),
    Column("params_m", "number", "millions", "Parameters of the model, its classifier included."),
    Column("device", "text", "", "Device that computed the embedding."),
    Column("precision", "text", "", "Floating-point format of the forward pass."),
    Column("seconds_build", "number", "s", "Time to build the model and load its weights."),
    Column("seconds_embed", "number", "s", "Time of the forward passes."),
    Column("seconds_measure", "number", "s", "Time of the measures."),
    Column("embedding_id", "text", "",
           "Identity of the embedding: weights, architecture, view, normalisation, precision."),
    Column("embedding_sha256", "text", "", "Hash of the embedding's values, which a kept file is checked against."),
    Column("row_id", "text", "", "Identity of the row: its embedding's and the measure settings."),
    Column("dataset", "text", "", "Data set of the subset."),
    Column("subset_hash", "text", "", "Content hash of the images, labels and crop seeds."),
    Column("versions", "text", "", "Versions of Python and the libraries that computed the row, as JSON."),
    Column("finished_at", "time", "UTC", "When the row was written."),
)
# fmt: on

COLUMN_NAMES = frozenset(column.name for column in COLUMNS)


def in_display_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the model first, then accuracies and scores, then the other columns in their order."""
    columns = [str(column) for column in rows.columns]
    scores = [score.name for score in (*MEASURES, *COMPARISONS)]
    leading = (*FIRST, *filter(is_accuracy, columns), *scores)
    first = [column for column in dict.fromkeys(leading) if column in rows]
    return rows[[*first, *(column for column in columns if column not in set(first))]]


def as_csv(table: pd.DataFrame) -> bytes:
    """Return a table as a CSV file; text that cannot be encoded, such as a stray byte of a path, becomes ``?``."""
    text: str = table.to_csv(index=False, lineterminator="\n")
    return text.encode(errors="replace")


def by_name(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows indexed by ``model@size``, so that ``by_name(rows).loc["resnet18@224"]`` is one of them.

    A model without a size is indexed by its name alone.
    """
    names = [
        model if pd.isna(size) else f"{model}@{int(size)}"
        for model, size in zip(rows["model"], rows["img_size"], strict=True)
    ]
    return rows.set_index(pd.Index(names, name="name"))


def rank(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return rows ordered by one column, the best first.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of a run, as `run` and `read_results` return them.
    score : str
        A column: scores and costs have their own direction (less is better for ``within_over_between`` and
        ``params_m``); for accuracies and your own measures more is better.

    Returns
    -------
    pandas.DataFrame
        The same rows with their index; rows without a value come last, ties keep their order.

    Raises
    ------
    InputError
        When there is no such column, or it has no better direction, such as ``seed`` or a text.
    """
    if score not in rows:
        close = get_close_matches(score, [str(column) for column in rows.columns], 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"the rows have no column {score!r}{hint}")
    if not _has_direction(rows, score):
        raise InputError(f"{score} has no better direction; use rows.sort_values({score!r})")
    numbers = pd.to_numeric(rows[score], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    sign = 1 if score in LOWER_IS_BETTER else -1
    return rows.iloc[np.argsort(sign * numbers, kind="stable")]


def _has_direction(rows: pd.DataFrame, score: str) -> bool:
    if score in LOWER_IS_BETTER or score in HIGHER_IS_BETTER or is_accuracy(score):
        return True
    own = " ".join(rows["own_measures"].dropna()) if "own_measures" in rows else ""
    return score in own.split()
