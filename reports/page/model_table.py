"""The table of all measured models in Markdown; the page has the explorer for it."""

from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo.pipeline.store.schema import is_accuracy, target_unit

from ..statistics.sample import BASELINES, CEILING, groups_of, values
from ..statistics.summary import Summary
from ..wording import MISSING, fixed, give_or_take, measure_title, target_title, with_unit


def model_table(ok: pd.DataFrame, summary: Summary, targets: list[str]) -> dict[str, Any]:
    """Every measured model, the most accurate first; top-5 accuracies and the catalogue's facts are the explorer's.

    Returns
    -------
    dict
        ``grouped`` and ``errors`` say whether there are groups and standard errors; ``heads`` are those of the numbers,
        and ``rows`` have ``model``, ``size``, ``group``, ``cells`` under the heads, and ``saturated``.
    """
    columns = _columns(summary, targets)
    cells_of = {name: _cells(ok, name, digits) for name, digits in columns.values()}
    order = _most_accurate_first(ok, summary)
    grouped = bool(groups_of(ok))
    groups = ok["group"] if grouped else pd.Series([None] * len(ok))
    models, sizes = ok["model"].astype(str).tolist(), values(ok, "img_size")
    saturated = {(entry["model"], entry["img_size"]) for entry in summary.saturated}

    rows = []
    for i in order:
        group = groups.iloc[i]
        rows.append(
            {
                "model": models[i],
                "size": fixed(sizes[i], 0),
                "group": MISSING if pd.isna(group) else str(group),
                "cells": [cells_of[name][i] for name, _ in columns.values()],
                "saturated": (models[i], sizes[i]) in saturated,
            }
        )
    has_errors = bool(np.isfinite(values(ok, "dsmi_z_y_se")).any())
    return {"grouped": grouped, "heads": list(columns), "errors": has_errors, "rows": rows}


def _columns(summary: Summary, targets: list[str]) -> dict[str, tuple[str, int]]:
    """The column of each head, and its decimals."""
    primary_target = summary.primary[1] if summary.primary else ""
    said_by_the_catalogue = {score.name for score in BASELINES} - {CEILING}
    columns: dict[str, tuple[str, int]] = {}
    for target in targets:
        if not target.endswith("top5") or target == primary_target:
            head = with_unit(target_title(target), target_unit(target) or "")
            columns[head] = (target, 1 if is_accuracy(target) else 2)
    for measure in summary.correlations:
        if measure not in said_by_the_catalogue:
            columns[measure_title(measure)] = (measure, 3)
    columns["d"] = ("embedding_dim", 0)
    columns["Median distance / sigma"] = ("median_distance_over_sigma", 2)
    return columns


def _cells(ok: pd.DataFrame, name: str, digits: int) -> list[str]:
    """The numbers of a column in words; DSMI(Z;Y) with its standard error."""
    numbers = [fixed(float(number), digits) for number in values(ok, name)]
    if name != "dsmi_z_y":
        return numbers
    errors = values(ok, "dsmi_z_y_se")
    return [
        number + give_or_take(error, digits) for number, error in zip(numbers, errors, strict=True)
    ]


def _most_accurate_first(ok: pd.DataFrame, summary: Summary) -> list[int]:
    if not summary.primary:
        return list(range(len(ok)))
    return np.argsort(-values(ok, summary.primary[1]), kind="stable").tolist()
