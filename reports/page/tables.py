"""The tables of the report: numbers in words, alike for HTML and Markdown."""

from collections.abc import Mapping

import numpy as np

from dsmi_zoo._util.text import plural
from dsmi_zoo.pipeline.store.schema import target_unit

from .. import wording
from ..statistics.comparison import Comparison
from ..statistics.correlation import Coefficient, Correlation
from ..statistics.prediction import ALL, TAKEN, Regret
from ..statistics.regression import GREATEST_INFLATION, SHOWN, Multiple
from ..statistics.sample import CEILING, PRIMARY_MEASURE, PRIMARY_TARGET
from ..statistics.standing import Difference, Standing, Standings
from ..statistics.summary import Summary, ranked_measures
from .parts import NO_NUMBER, Cell, Table
from .rendering import prose

number, text = Cell.of_number, Cell.of_text

LEAST = -9.0  # below every difference of |rho|: what has none stands last


def correlation_table(summary: Summary, target: str) -> Table:
    """Every score with one target: four coefficients, rank, what independence would say, and p values."""
    heads = [
        "Score",
        "n",
        "Spearman",
        "Rank",
        "Pearson",
        "Kendall",
        "Weighted Kendall",
        "Spearman, rows as independent",
        "p (Holm)",
        "Note",
    ]
    standings = summary.standings[target]
    rows = [
        _correlation_row(measure, target, summary.correlations[measure][target], standings)
        for measure in ranked_measures(summary, target)
    ]
    title = f"Scores and {wording.target_title(target)}"
    return Table(title, heads, rows, text_columns=(0, 9)).without_empty_last_column()


def _correlation_row(
    measure: str, target: str, correlation: Correlation, standings: Standings
) -> list[Cell]:
    rho = correlation.spearman
    standing = (standings.scores or {}).get(measure)
    is_primary = (measure, target) == (PRIMARY_MEASURE, PRIMARY_TARGET)
    p = (
        f"{wording.p_value(rho.p_families)} (primary)"
        if is_primary
        else wording.p_value(rho.p_holm)
    )
    return [
        text(wording.measure_title(measure)),
        text(correlation.n),
        coefficient_cell(rho),
        _rank_cell(standing),
        coefficient_cell(correlation.pearson),
        coefficient_cell(correlation.kendall),
        coefficient_cell(correlation.weighted_kendall),
        text(wording.interval(rho.ci_rows) if rho.ci_rows else wording.MISSING),
        text(p),
        text(rho.reason or _standing_note(measure, standing, standings.static)),
    ]


def _rank_cell(standing: Standing | None) -> Cell:
    if standing is None:
        return NO_NUMBER
    low, high = standing.ranks
    return Cell(str(standing.rank), f"{low} to {high}")


def _standing_note(score: str, standing: Standing | None, static: str | None) -> str:
    if score == CEILING:
        return "accuracy itself on the subset: no rival"
    if standing is None or static is None or standing.beyond_static_ci is None:
        return ""
    beats_it = standing.beyond_static_ci[0] > 0
    return "" if beats_it else f"not shown to beat {wording.measure_title(static)}"


def within_groups_table(summary: Summary, target: str) -> Table:
    """Spearman's rho of every score with one target among the models of each group."""
    groups = summary.within_groups
    rows = []
    for measure in ranked_measures(summary, target):
        of_groups = [by_measure.get(measure, {}).get(target) for by_measure in groups.values()]
        rows.append([text(wording.measure_title(measure)), *map(_within_cell, of_groups)])
    return Table(
        f"Measures and {wording.target_title(target)}, group by group", ["Measure", *groups], rows
    )


def _within_cell(correlation: Correlation | None) -> Cell:
    if correlation is None:
        return Cell(wording.MISSING, "n = 0")
    rho = coefficient_cell(correlation.spearman)
    below = f"{rho.ci}, n = {correlation.n}" if rho.ci else f"n = {correlation.n}"
    return Cell(rho.value, below)


def regression_table(summary: Summary, target: str) -> Table:
    """Least squares of one target on each score, with both kinds of errors."""
    heads = [
        "Score",
        "n",
        "Intercept",
        "Slope",
        f"95% interval, clustered by {summary.unit}",
        "p, clustered",
        "95% interval, HC3 (independent rows)",
        "p, HC3",
        "R²",
        "Note",
    ]
    rows = []
    for measure in ranked_measures(summary, target):
        fit = summary.regression[measure][target]
        rows.append(
            [
                text(
                    wording.with_unit(wording.measure_title(measure), wording.measure_unit(measure))
                ),
                text(fit.n),
                text(wording.significant(fit.intercept)),
                text(wording.significant(fit.slope)),
                text(wording.significant_interval(fit.ci_families)),
                text(wording.p_value(fit.p_families)),
                text(wording.significant_interval(fit.ci)),
                text(wording.p_value(fit.p)),
                text(wording.fixed(fit.r2)),
                text(fit.reason or ""),
            ]
        )
    title = wording.with_unit(wording.target_title(target), target_unit(target) or "")
    title = f"{title[0].upper()}{title[1:]}"
    return Table(title, heads, rows, text_columns=(0, 9)).without_empty_last_column()


def coefficient_cell(coefficient: Coefficient) -> Cell:
    """A coefficient with its families' interval."""
    return number(coefficient.value, coefficient.ci)


def _ordered(summary: Summary) -> list[str]:
    assert summary.primary is not None
    return ranked_measures(summary, summary.primary[1])


def prediction_table(summary: Summary) -> Table:
    """How well each score predicts accuracy for unseen families, and what a choice by it loses."""
    heads = [
        "Score",
        "R² (leave one out)",
        "Mean absolute error",
        *(f"Regret of {k}" for k in TAKEN),
        "Not computed",
    ]
    overall = summary.regrets.get(ALL, {})
    rows = []
    for score in _ordered(summary):
        prediction, regret = summary.predictions[score], overall.get(score)
        reason = prediction.reason or (regret.reason if regret else None)
        rows.append(
            [
                text(wording.measure_title(score)),
                number(prediction.r2, prediction.r2_ci),
                number(prediction.mean_absolute_error, digits=1),
                *(_regret_cell(regret, k) for k in TAKEN),
                text(reason or ""),
            ]
        )
    return Table(None, heads, rows, text_columns=(0, len(heads) - 1)).without_empty_last_column()


def _regret_cell(regret: Regret | None, k: int) -> Cell:
    if regret is None or not regret.lost:
        return NO_NUMBER
    return number(regret.lost.get(k), (regret.lost_ci or {}).get(k), digits=1)


def band_tables(summary: Summary) -> list[Table]:
    """Regret among models of like cost; none where the costs are unknown."""
    bands = {name: by_score for name, by_score in summary.regrets.items() if name != ALL}
    if not bands:
        return []
    rows = []
    for score in _ordered(summary):
        of_bands = [_regrets_in_words(by_score.get(score)) for by_score in bands.values()]
        rows.append([text(wording.measure_title(score)), *map(text, of_bands)])
    return [Table("Regret of 1 / 5 / 10 among models of like cost", ["Score", *bands], rows)]


def _regrets_in_words(regret: Regret | None) -> str:
    if regret is None or not regret.lost:
        return wording.MISSING
    return " / ".join(wording.fixed(regret.lost.get(k), 1) for k in TAKEN)


def difference_table(differences: Mapping[str, Difference]) -> Table:
    """How far each score is ahead of the primary one, the furthest first."""

    def ahead(score: str) -> float:
        value = differences[score].value
        return LEAST if value is None else value

    rows = []
    for score in sorted(differences, key=ahead, reverse=True):
        difference = differences[score]
        rows.append(
            [
                text(wording.measure_title(score)),
                text(difference.n),
                number(difference.value, difference.ci),
                text(wording.p_value(difference.p_holm)),
                text(difference.reason or ""),
            ]
        )
    heads = ["Score", "n", "Difference of |rho|", "p (Holm)", "Not computed"]
    return Table(None, heads, rows, text_columns=(0, 4)).without_empty_last_column()


def partial_table(summary: Summary) -> Table:
    """Partial correlations of each score with accuracy, given each set of controls."""
    rows = []
    for score in _ordered(summary):
        given_controls = [by_score.get(score) for by_score in summary.partial.values()]
        rows.append([text(wording.measure_title(score)), *map(_partial_cell, given_controls)])
    return Table(
        "Partial correlations", ["Score", *(f"given {title}" for title in summary.partial)], rows
    )


def _partial_cell(correlation: Correlation | str | None) -> Cell:
    """A correlation, or why there is none."""
    if isinstance(correlation, Correlation):
        return coefficient_cell(correlation.pearson)
    return Cell(wording.MISSING, correlation or "")


def multiple_table(regression: Multiple | None, unit: str) -> Table:
    """The multiple regression, or why there is none."""
    title = "Multiple regression"
    heads = ["Predictor", "Percentage points per standard deviation", "p", "Variance inflation"]
    if regression is None or regression.reason:
        reason = regression.reason if regression else "there is no accuracy"
        return Table(title, heads, [], note=f"Not computed: {reason}.")
    rows = []
    for coefficient in regression.coefficients:
        rows.append(
            [
                text(wording.measure_title(coefficient.name)),
                number(coefficient.value, coefficient.ci),
                text(wording.p_value(coefficient.p)),
                number(coefficient.inflation, digits=1),
            ]
        )
    note = prose(
        "multiple_regression",
        n=str(regression.n),
        r2=wording.fixed(regression.r2),
        unit=unit,
        left_out=", ".join(
            f"{wording.measure_title(name)} ({why})" for name, why in regression.why.items()
        ),
        greatest_inflation=f"{GREATEST_INFLATION:.0f}",
    )
    return Table(title, heads, rows, note=note)


def mixed_table(summary: Summary) -> Table:
    """The mixed model of the primary score, or why there is none."""
    assert summary.primary is not None
    model = summary.mixed
    title = f"Mixed model with a random intercept for each {summary.unit}"
    heads = [
        "Score",
        "Slope (percentage points per unit)",
        "p",
        f"Variance between {plural(summary.unit)} (%)",
    ]
    if model is None or model.reason:
        reason = model.reason if model else "no accuracy"
        return Table(title, heads, [], note=f"Not computed: {reason}.")
    slope_ci = wording.significant_interval(model.ci) if model.ci else ""
    percent_between = None if model.share is None else 100 * model.share
    row = [
        text(wording.measure_title(summary.primary[0])),
        Cell(wording.significant(model.slope), slope_ci),
        text(wording.p_value(model.p)),
        number(percent_between, digits=0),
    ]
    return Table(title, heads, [row])


def robustness_table(summary: Summary) -> Table:
    """The primary correlation on other choices of rows."""
    rows = []
    for choice in summary.robustness:
        rows.append(
            [
                text(choice.name),
                text(choice.n),
                text(choice.families),
                number(choice.effective, digits=1),
                coefficient_cell(choice.spearman),
                text(choice.spearman.reason or ""),
            ]
        )
    heads = ["Rows", "n", plural(summary.unit).capitalize(), "Effective", "Spearman's rho", "Note"]
    return Table(None, heads, rows, text_columns=(0, 5)).without_empty_last_column()


def class_subsets_tables(summary: Summary) -> list[Table]:
    """The primary correlation on random halves of the classes; none if it was not asked for."""
    if not summary.class_subsets:
        return []
    heads = [
        "Random halves of the classes",
        "Least",
        "Quarter",
        "Median",
        "Three quarters",
        "Greatest",
    ]
    quantiles = np.quantile(summary.class_subsets, [0, 0.25, 0.5, 0.75, 1])
    row = [text(len(summary.class_subsets)), *(number(float(quantile)) for quantile in quantiles)]
    return [Table("Other classes", heads, [row])]


def published_tables(summary: Summary) -> list[Table]:
    """The paper's correlations beside those of the same zoo here; none for other zoos."""
    if not summary.published:
        return []
    assert summary.primary is not None
    rows = []
    for score, theirs in summary.published.items():
        ours = summary.correlations.get(score, {}).get(summary.primary[1])
        for kind in ("pearson", "spearman"):
            own = getattr(ours, kind) if ours else Coefficient()
            title = f"{wording.measure_title(score)}, {kind.capitalize()}"
            rows.append([text(title), number(theirs[kind], digits=3), number(own.value, own.ci, 3)])
    return [Table("The paper's figures beside these", ["", "Published", "Here"], rows)]


def influence_tables(summary: Summary) -> list[Table]:
    """The rows that move the regression most; none where there is no regression."""
    rows = []
    for influence in summary.influences[:SHOWN]:
        rows.append(
            [
                text(f"{influence.model}@{influence.img_size}"),
                number(influence.fitted, digits=1),
                number(influence.residual, digits=1),
                number(influence.leverage, digits=3),
                number(influence.cooks_distance, digits=3),
            ]
        )
    if not rows:
        return []
    heads = ["Model", "Fitted (%)", "Residual", "Leverage", "Cook's distance"]
    return [Table("Rows of the greatest influence on the regression", heads, rows)]


def compared_table(comparison: Comparison) -> Table:
    """How each score of one run agrees with the same of another."""
    rows = []
    for score in comparison.scores:
        rows.append(
            [
                text(wording.measure_title(score.score)),
                text(score.n),
                number(score.agreement),
                text(wording.significant(score.median_change)),
                number(score.here),
                number(score.there),
            ]
        )
    target = wording.target_title(comparison.target) if comparison.target else "accuracy"
    heads = ["Score", "n", "Agreement (rho)", "Median change", f"rho with {target} here", "there"]
    return Table(None, heads, rows)
