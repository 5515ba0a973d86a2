"""Exported tables: all correlations of a report as one flat table, and tables as LaTeX."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo.pipeline.store.schema import target_unit

from ..statistics.correlation import Coefficient
from ..statistics.sample import names, scores_of, succeeded, targets_of, values
from ..statistics.summary import Summary, ranked_measures
from ..wording import measure_title, measure_unit, significant, target_title, with_unit
from .analysis import target_tables
from .rendering import AnyCell, Cell, Table, table_of_words

COEFFICIENTS = ("spearman", "pearson", "kendall", "weighted_kendall")
ROUNDING = 1e-12  # smaller shares of a column's largest number count as 0
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "–": "--",
    "²": "$^2$",
    "\N{WORD JOINER}": "",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def correlation_table(summary: Summary) -> pd.DataFrame:
    """Return one row per accuracy and score, in the order of the page: the content of its table of correlations.

    Intervals are ``<name>_low`` and ``<name>_high``; undefined numbers are empty, and ``reason`` says why.
    """
    records: list[dict[str, Any]] = []
    for target in summary.standings:
        standings = summary.standings[target]
        for score in ranked_measures(summary, target):
            correlation = summary.correlations[score][target]
            record: dict[str, Any] = {"target": target, "score": score}
            record |= {"title": measure_title(score), "n": correlation.n}
            record |= {"unit": summary.unit, "units": correlation.units}
            for name in COEFFICIENTS:
                record |= _coefficient(name, getattr(correlation, name))
            standing = (standings.scores or {}).get(score)
            record["rank"] = standing.rank if standing else None
            ranks = standing.ranks if standing else (None, None)
            record["rank_low"], record["rank_high"] = ranks
            record["ranked_scores"] = len(standings.scores or {}) or None
            left_out = (standings.left_out or {}).get(score)
            record["reason"] = correlation.spearman.reason or left_out or standings.reason
            records.append(record)
    frame = pd.DataFrame(records)
    whole = ("n", "units", "rank", "rank_low", "rank_high", "ranked_scores")
    return frame.astype({name: "Int64" for name in whole if name in frame})


def _coefficient(name: str, coefficient: Coefficient) -> dict[str, float | None]:
    value, _, ci, p, ci_rows, p_holm, _ = astuple(coefficient)
    low, high = ci or (None, None)
    found = {name: value, f"{name}_low": low, f"{name}_high": high}
    if name != "spearman":
        return found
    rows_low, rows_high = ci_rows or (None, None)
    found |= {"spearman_rows_low": rows_low, "spearman_rows_high": rows_high}
    return found | {"spearman_p": p, "spearman_p_holm": p_holm}


def latex_of_correlations(summary: Summary) -> str:
    """Return the page's tables of correlations, one for each accuracy, as LaTeX."""
    tables = [target_tables(summary, target)["correlations"] for target in summary.standings]
    return "\n".join(as_latex(table) for table in tables)


def latex_of_rows(rows: pd.DataFrame) -> tuple[str, int]:
    """Return the measured rows' accuracies and scores as a LaTeX table, and its number of columns."""
    rows = succeeded(rows)
    found = dict.fromkeys([*targets_of(rows), *scores_of(rows)])
    columns = [name for name in found if name != "img_size"]
    numbers = {name: _without_rounding_errors(values(rows, name)) for name in columns}
    targets = targets_of(rows)
    heads = ["Model", "Size", *(_head(name, name in targets) for name in columns)]
    lines: list[list[AnyCell]] = []
    for i, named in enumerate(names(rows)):
        size = "" if named["img_size"] is None else str(named["img_size"])
        lines.append([named["model"], size, *(significant(numbers[name][i]) for name in columns)])
    return as_latex(table_of_words(None, heads, lines)), len(heads)


def _without_rounding_errors(column: np.ndarray) -> np.ndarray:
    """Return the numbers [n] with 0 in place of those below ``ROUNDING`` times the largest."""
    largest = np.max(np.abs(column), where=np.isfinite(column), initial=0)
    return np.where(np.abs(column) < ROUNDING * largest, 0.0, column)


def _head(name: str, is_target: bool) -> str:
    if is_target:
        return with_unit(target_title(name), target_unit(name) or "")
    return with_unit(measure_title(name), measure_unit(name))


def as_latex(table: Table) -> str:
    """Return a table for LaTeX's package booktabs, with intervals in brackets after their numbers, the note below."""
    alignment = "".join("l" if i in table.text_columns else "r" for i in range(len(table.heads)))
    lines = [] if table.title is None else [f"% {' '.join(table.title.split())}"]
    lines += [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", _with_rho(_latex_row(table.heads))]
    lines.append(r"\midrule")
    lines += [_latex_row([_with_interval(cell) for cell in row]) for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.note:
        note = _with_rho(escaped_for_latex(table.note))
        lines += [r"\par\smallskip", rf"{{\footnotesize {note}\par}}"]
    return "\n".join([*lines, ""])


def _with_rho(line: str) -> str:
    return line.replace(r"\textbar{}rho\textbar{}", r"$|\rho|$")


def _with_interval(cell: Cell) -> str:
    return f"{cell.value} ({cell.ci})" if cell.ci else cell.value


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped_for_latex, cells)) + r" \\"


def escaped_for_latex(text: str) -> str:
    """Return a line of text that LaTeX shows literally."""
    line = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    return f"{{{line}}}" if line.startswith(("[", "*")) else line  # after \\ these are an option
