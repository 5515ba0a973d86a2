"""Rows as people read them: the order of their columns, one row by its model's name, the best first."""

from difflib import get_close_matches

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError

from ..measures.catalog import COMPARISONS, MEASURES
from .schema import is_accuracy

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


def for_people(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the model first, then accuracies and scores, then the other columns in their order."""
    columns = [str(column) for column in rows.columns]
    scores = [score.name for score in (*MEASURES, *COMPARISONS)]
    leading = (*FIRST, *filter(is_accuracy, columns), *scores)
    first = [column for column in dict.fromkeys(leading) if column in rows]
    return rows[[*first, *(column for column in columns if column not in set(first))]]


def as_csv(table: pd.DataFrame) -> bytes:
    """Return a table as a CSV file; what cannot be encoded, such as a stray byte of a path, becomes a question mark."""
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
        A column: a score or cost in its own direction (less is better for ``within_over_between`` and ``params_m``);
        for accuracies and your own measures more is better.

    Returns
    -------
    pandas.DataFrame
        The same rows with the index they had; rows without a value are last, ties stay in their order.

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
