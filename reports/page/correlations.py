"""The tables of correlations and of simple regressions, one per target."""

from typing import Any

from dsmi_zoo.pipeline.store.schema import target_unit

from ..statistics.correlation import Coefficient, Correlation
from ..statistics.sample import CEILING, PRIMARY_MEASURE, PRIMARY_TARGET
from ..statistics.standing import Standing
from ..statistics.summary import Summary, ranked_measures
from ..wording import (
    MISSING,
    fixed,
    interval,
    measure_title,
    measure_unit,
    p_value,
    significant,
    significant_interval,
    target_title,
    with_unit,
)
from .parts import NO_NUMBER, AnyCell, Cell, Table, number, table_of_records, table_of_words


def target_tables(summary: Summary, target: str) -> dict[str, Any]:
    """Return all tables of one target."""
    return {
        "correlations": _correlation_table(summary, target),
        "regression": _regression_table(summary, target),
        "within": _within_groups_table(summary, target) if summary.within_groups else None,
    }


def coefficient_cell(coefficient: Coefficient) -> Cell:
    """Return the cell of a coefficient with its interval over families."""
    return number(coefficient.value, coefficient.ci)


def _correlation_table(summary: Summary, target: str) -> Table:
    standings = summary.standings[target]
    records: list[dict[str, AnyCell]] = []
    for measure in ranked_measures(summary, target):
        correlation = summary.correlations[measure][target]
        rho = correlation.spearman
        standing = (standings.scores or {}).get(measure)
        if (measure, target) == (PRIMARY_MEASURE, PRIMARY_TARGET):
            p = f"{p_value(rho.p_families)} (primary)"
        else:
            p = p_value(rho.p_holm)
        records.append(
            {
                "Score": measure_title(measure),
                "n": correlation.n,
                "Spearman": coefficient_cell(rho),
                "Rank": _rank_cell(standing),
                "Pearson": coefficient_cell(correlation.pearson),
                "Kendall": coefficient_cell(correlation.kendall),
                "Weighted Kendall": coefficient_cell(correlation.weighted_kendall),
                "Spearman, rows as independent": interval(rho.ci_rows),
                "p (Holm)": p,
                "Note": rho.reason or _standing_note(measure, standing, standings.static),
            }
        )
    return table_of_records(f"Scores and {target_title(target)}", records)


def _rank_cell(standing: Standing | None) -> Cell:
    if standing is None:
        return NO_NUMBER
    low, high = standing.ranks
    return Cell(str(standing.rank), f"{low} to {high}")


def _standing_note(score: str, standing: Standing | None, static: str | None) -> str:
    if score == CEILING:
        return "accuracy itself on the subset: not a rival"
    if standing is None or static is None or standing.beyond_static_ci is None:
        return ""
    beats_static = standing.beyond_static_ci[0] > 0
    return "" if beats_static else f"not shown to beat {measure_title(static)}"


def _within_groups_table(summary: Summary, target: str) -> Table:
    groups = summary.within_groups
    rows: list[list[AnyCell]] = []
    for measure in ranked_measures(summary, target):
        row: list[AnyCell] = [measure_title(measure)]
        for by_measure in groups.values():
            row.append(_within_cell(by_measure.get(measure, {}).get(target)))
        rows.append(row)
    title = f"Measures and {target_title(target)}, group by group"
    return table_of_words(title, ["Measure", *groups], rows)


def _within_cell(correlation: Correlation | None) -> Cell:
    if correlation is None:
        return Cell(MISSING, "n = 0")
    rho = coefficient_cell(correlation.spearman)
    n = f"n = {correlation.n}"
    return Cell(rho.value, f"{rho.ci}, {n}" if rho.ci else n)


def _regression_table(summary: Summary, target: str) -> Table:
    records: list[dict[str, AnyCell]] = []
    for measure in ranked_measures(summary, target):
        fit = summary.regression[measure][target]
        records.append(
            {
                "Score": with_unit(measure_title(measure), measure_unit(measure)),
                "n": fit.n,
                "Intercept": significant(fit.intercept),
                "Slope": significant(fit.slope),
                f"95% interval, clustered by {summary.unit}": significant_interval(fit.ci_families),
                "p, clustered": p_value(fit.p_families),
                "95% interval, HC3 (independent rows)": significant_interval(fit.ci),
                "p, HC3": p_value(fit.p),
                "R²": fixed(fit.r2),
                "Note": fit.reason or "",
            }
        )
    title = with_unit(target_title(target), target_unit(target) or "")
    return table_of_records(f"{title[0].upper()}{title[1:]}", records)
