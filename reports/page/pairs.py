"""The section on pairs of models: whether a second backbone adds anything, and what both cost."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import DamagedFile
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.measures.core.hits import unpack_hits
from dsmi_zoo.pipeline.store.pairs import PairHits, pairs_path, read_pairs
from dsmi_zoo.pipeline.store.subset_file import read_subset

from ..statistics.classes import images_of
from ..statistics.pairs import Pairs, of_pairs
from ..statistics.ranking import Quantity
from ..statistics.sample import labels, own_rows, succeeded, values
from ..wording import fixed, p_in_words, p_value, significant
from .rendering import AnyCell, Section, Table, number, prose, table_of_words

log = logging.getLogger(__name__)

SHOWN = 10


def pairs_of(rows: pd.DataFrame, quantity: Quantity, folder: Path) -> Pairs | None:
    """Return the pairs of a run's rows; None if there are none. Pairs of rows that have changed since are left out."""
    try:
        stored = read_pairs(folder)
        classes = images_of(read_subset(folder), None).classes if stored else np.array([])
    except (ValueError, DamagedFile) as error:
        log.warning(
            f"{pairs_path(folder)}: {error}; `dsmi-zoo pairs --out {folder}` computes it again"
        )
        return None
    ok = succeeded(own_rows(rows))
    ok = ok[ok["probe_hits"].notna()]
    name_of = dict(zip(ok["row_id"], labels(ok), strict=True))
    singles = dict(zip(labels(ok), map(unpack_hits, ok["probe_hits"]), strict=True))
    found = [
        PairHits(name_of[one.first], name_of[one.second], one.hits)
        for one in stored
        if one.first in name_of and one.second in name_of and len(one.hits) == len(classes)
    ]
    if len(found) < len(stored):
        log.warning(
            f"{counted(len(stored) - len(found), 'pair')} in {pairs_path(folder)} left out, because their rows have "
            f"changed since; `dsmi-zoo pairs --out {folder}` computes them again"
        )
    return of_pairs(singles, found, classes, quantity)


def pairs_section(found: Pairs, rows: pd.DataFrame) -> Section:
    """Return the section on pairs."""
    tried = counted(len(found.pairs), "pair")
    text = prose("pairs", answer=pairs_answer(found), tried=tried, models=str(found.models))
    return Section("pairs", "Two backbones", text, [_table(found, rows)])


def pairs_answer(found: Pairs) -> str:
    """Return sentences on whether a second backbone adds anything, and on the best pair."""
    best = found.pairs[0]
    gain = f"{fixed(found.gain, 1)} points ({fixed(found.low, 1)} to {fixed(found.high, 1)})"
    if found.low > 0:
        lead = f"A second backbone adds {gain} to the accuracy of the best one, p {p_in_words(found.p)}."
    else:
        lead = f"A second backbone is not shown to add anything: {gain}."
    return (
        f"{lead} The best pair, {best.first} and {best.second}, has {fixed(best.accuracy, 1)}%; "
        f"{found.best_single} alone has {fixed(found.best_accuracy, 1)}%."
    )


def _table(found: Pairs, rows: pd.DataFrame) -> Table:
    ok = succeeded(own_rows(rows))
    costs = {
        title: dict(zip(labels(ok), values(ok, column), strict=True))
        for title, column in (("Parameters (M)", "params_m"), ("GMACs", "gmacs"))
    }
    heads = ["Pair", "Both (%)", "Above the better one", "p (Holm)", *costs]
    table: list[list[AnyCell]] = []
    for pair in found.pairs[:SHOWN]:
        sums = [of[pair.first] + of[pair.second] for of in costs.values()]
        table.append(
            [
                f"{pair.first} + {pair.second}",
                number(pair.accuracy, (pair.low, pair.high), digits=1),
                fixed(pair.gain, 1),
                p_value(pair.p_holm),
                *(significant(total) for total in sums),
            ]
        )
    left = len(found.pairs) - len(table)
    note = f"{counted(left, 'more pair')} are in pairs.csv." if left > 0 else ""
    return table_of_words(None, heads, table, note=note)


def pairs_table(found: Pairs) -> pd.DataFrame:
    """Return all pairs, for ``pairs.csv``."""
    return pd.DataFrame(found.pairs)


def summary_of_pairs(found: Pairs) -> dict[str, Any]:
    """Return the part ``pairs`` of ``summary.json``."""
    best = found.pairs[0]
    return {
        "answer": pairs_answer(found),
        "models": found.models,
        "pairs": len(found.pairs),
        "gain": found.gain,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "best": [best.first, best.second],
        "best_accuracy": best.accuracy,
    }
