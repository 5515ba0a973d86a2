"""The tables of correlations and simple regressions, and the sections between them: one question each."""

from collections.abc import Mapping
from typing import Any

from dsmi_zoo._util.text import plural
from dsmi_zoo.pipeline.store.schema import target_unit

from ..figures.scatter import compared
from ..statistics.comparison import Comparison
from ..statistics.correlation import Coefficient, Correlation
from ..statistics.prediction import ALL, TAKEN, Regret
from ..statistics.regression import GREATEST_INFLATION, SHOWN, Multiple
from ..statistics.sample import CEILING, PRIMARY_MEASURE, PRIMARY_TARGET
from ..statistics.standing import Difference, Standing
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
from .rendering import (
    NO_NUMBER,
    AnyCell,
    Cell,
    Illustration,
    Section,
    Table,
    number,
    prose,
    table_of_records,
    table_of_words,
)


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


LOWEST = -9.0  # below every difference of |rho|, to sort scores without one last


def sections(summary: Summary) -> list[Section]:
    """Return the sections on prediction, the primary score's rivals, confounders and robustness."""
    if summary.primary is None:
        return []
    score, accuracy = summary.primary
    measure, target = measure_title(score), target_title(accuracy)
    order = ranked_measures(summary, accuracy)
    unit, units = summary.unit, plural(summary.unit)
    return [
        Section(
            "choice",
            "Prediction and choice",
            prose("choice", target=target, unit=unit, units=units),
            [_prediction_table(summary, order), *_cost_band_tables(summary, order)],
        ),
        Section(
            "comparison",
            f"Against {measure}",
            prose("comparison", measure=measure, target=target, units=units),
            [_difference_table(summary.differences)],
        ),
        Section(
            "controls",
            "Possible confounders",
            prose("controls"),
            [_partial_table(summary, order), _multiple_table(summary.multiple, unit)],
        ),
        Section(
            "robustness",
            "Robustness",
            prose("robustness", measure=measure, target=target),
            [
                _robustness_table(summary),
                *_published_tables(summary, accuracy),
                *_influence_tables(summary),
            ],
        ),
    ]


def compared_section(comparison: Comparison) -> Section:
    """Return the section on a second run."""
    drawing = compared(*comparison.primary, "dsmi_z_y", ("this run", comparison.name))
    return Section(
        "compared",
        f"Compared with {comparison.name}",
        prose(
            "compared",
            changed="; ".join(comparison.settings) or "none that run.json records",
            name=comparison.name,
            only_here=str(comparison.only_here),
            only_there=str(comparison.only_there),
        ),
        [_compared_table(comparison)],
        [Illustration("compared", drawing, prose("compared_figure"))],
    )


def _prediction_table(summary: Summary, order: list[str]) -> Table:
    overall = summary.regrets.get(ALL, {})
    records: list[dict[str, AnyCell]] = []
    for score in order:
        prediction, regret = summary.predictions[score], overall.get(score)
        reason = prediction.reason or (regret.reason if regret else None)
        records.append(
            {
                "Score": measure_title(score),
                "R² (leave one out)": number(prediction.r2, prediction.r2_ci),
                "Mean absolute error": number(prediction.mean_absolute_error, digits=1),
                **{f"Regret of {k}": _regret_cell(regret, k) for k in TAKEN},
                "Not computed": reason or "",
            }
        )
    return table_of_records(None, records)


def _regret_cell(regret: Regret | None, k: int) -> Cell:
    if regret is None or not regret.lost:
        return NO_NUMBER
    return number(regret.lost.get(k), (regret.lost_ci or {}).get(k), digits=1)


def _cost_band_tables(summary: Summary, order: list[str]) -> list[Table]:
    """Return the table of regret among models of similar cost; none if the costs are unknown."""
    bands = {name: by_score for name, by_score in summary.regrets.items() if name != ALL}
    if not bands:
        return []
    records: list[dict[str, AnyCell]] = []
    for score in order:
        record: dict[str, AnyCell] = {"Score": measure_title(score)}
        for band, by_score in bands.items():
            lost = by_score[score].lost if score in by_score else None
            shown = [fixed(lost.get(k), 1) for k in TAKEN] if lost else [MISSING]
            record[band] = " / ".join(shown)
        records.append(record)
    return [table_of_records("Regret of 1 / 5 / 10 among models of similar cost", records)]


def _difference_table(differences: Mapping[str, Difference]) -> Table:
    def ahead(score: str) -> float:
        value = differences[score].value
        return LOWEST if value is None else value

    records: list[dict[str, AnyCell]] = []
    for score in sorted(differences, key=ahead, reverse=True):
        difference = differences[score]
        records.append(
            {
                "Score": measure_title(score),
                "n": difference.n,
                "Difference of |rho|": number(difference.value, difference.ci),
                "p (Holm)": p_value(difference.p_holm),
                "Not computed": difference.reason or "",
            }
        )
    return table_of_records(None, records)


def _partial_table(summary: Summary, order: list[str]) -> Table:
    records: list[dict[str, AnyCell]] = []
    for score in order:
        record: dict[str, AnyCell] = {"Score": measure_title(score)}
        for controls, by_score in summary.partial.items():
            found = by_score.get(score)
            if isinstance(found, Correlation):
                record[f"given {controls}"] = coefficient_cell(found.pearson)
            else:
                record[f"given {controls}"] = Cell(MISSING, found or "")
        records.append(record)
    return table_of_records("Partial correlations", records)


def _multiple_table(regression: Multiple | None, unit: str) -> Table:
    title = "Multiple regression"
    if regression is None or regression.reason:
        reason = regression.reason if regression else "there is no accuracy"
        return table_of_records(title, [], note=f"Not computed: {reason}.")
    records: list[dict[str, AnyCell]] = []
    for predictor in regression.coefficients:
        records.append(
            {
                "Predictor": measure_title(predictor.name),
                "Percentage points per standard deviation": number(predictor.value, predictor.ci),
                "p": p_value(predictor.p),
                "Variance inflation": number(predictor.inflation, digits=1),
            }
        )
    note = prose(
        "multiple_regression",
        n=str(regression.n),
        r2=fixed(regression.r2),
        unit=unit,
        left_out=", ".join(
            f"{measure_title(name)} ({why})" for name, why in regression.why.items()
        ),
        greatest_inflation=f"{GREATEST_INFLATION:.0f}",
    )
    return table_of_records(title, records, note=note)


def _robustness_table(summary: Summary) -> Table:
    records: list[dict[str, AnyCell]] = []
    for variant in summary.robustness:
        records.append(
            {
                "Rows": variant.name,
                "n": variant.n,
                plural(summary.unit).capitalize(): variant.families,
                "Effective": number(variant.effective, digits=1),
                "Spearman's rho": coefficient_cell(variant.spearman),
                "Note": variant.spearman.reason or "",
            }
        )
    return table_of_records(None, records)


def _published_tables(summary: Summary, target: str) -> list[Table]:
    """Return the paper's correlations beside those here; none for other zoos."""
    records: list[dict[str, AnyCell]] = []
    for score, theirs in summary.published.items():
        ours = summary.correlations.get(score, {}).get(target)
        for kind in ("pearson", "spearman"):
            own = getattr(ours, kind) if ours else Coefficient()
            records.append(
                {
                    "": f"{measure_title(score)}, {kind.capitalize()}",
                    "Published": number(theirs[kind], digits=3),
                    "Here": number(own.value, own.ci, 3),
                }
            )
    return [table_of_records("The paper's figures and these", records)] if records else []


def _influence_tables(summary: Summary) -> list[Table]:
    """Return the table of the most influential rows; none without a regression."""
    records: list[dict[str, AnyCell]] = []
    for influence in summary.influences[:SHOWN]:
        records.append(
            {
                "Model": f"{influence.model}@{influence.img_size}",
                "Fitted (%)": number(influence.fitted, digits=1),
                "Residual": number(influence.residual, digits=1),
                "Leverage": number(influence.leverage, digits=3),
                "Cook's distance": number(influence.cooks_distance, digits=3),
            }
        )
    title = "Rows with the greatest influence on the regression"
    return [table_of_records(title, records)] if records else []


def _compared_table(comparison: Comparison) -> Table:
    target = target_title(comparison.target) if comparison.target else "accuracy"
    heads = [
        "Score",
        "n",
        "Agreement (rho)",
        "Median change",
        f"rho with {target}, this run",
        f"rho with {target}, {comparison.name}",
    ]
    rows: list[list[AnyCell]] = []
    for score in comparison.scores:
        change = significant(score.median_change)
        rhos = [number(score.here), number(score.there)]
        title = measure_title(score.score)
        rows.append([title, score.n, number(score.agreement), change, *rhos])
    return table_of_words(None, heads, rows)
