"""Tables of correlations and simple regressions, and the sections between them, each on one question."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from dsmi_zoo._util.text import plural
from dsmi_zoo.pipeline.store.schema import target_unit

from ..figures.scatter import compared
from ..statistics.comparison import Comparison
from ..statistics.correlation import Coefficient, Correlation
from ..statistics.fidelity import GAPS, Fidelity
from ..statistics.prediction import ALL, TOP_K
from ..statistics.regression import GREATEST_INFLATION, SHOWN, Multiple
from ..statistics.sample import CEILING, PRIMARY_MEASURE, PRIMARY_TARGET
from ..statistics.standing import Difference, Standing
from ..statistics.summary import Summary, ranked_measures
from ..wording import (
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

WIDEST = 1.0  # intervals of a difference of |rho| this wide or wider are not shown
BEST_IN_BOTH = 20  # models listed in a comparison
CLOSE = 1  # index in ``GAPS`` for the first table: models that one would choose between
CLOSE_PAIRS = "Close pairs"


def target_tables(summary: Summary, target: str) -> dict[str, Any]:
    """Return all tables of one target; those within groups are in `sections` if it is the primary one."""
    is_primary = _is_primary(summary, target)
    show_groups = bool(summary.within_groups) and not is_primary
    return {
        "primary": is_primary,
        "correlations": _correlation_table(summary, target),
        "regression": _regression_table(summary, target),
        "within": _within_groups_table(summary, target) if show_groups else None,
    }


def _is_primary(summary: Summary, target: str) -> bool:
    return summary.primary is not None and summary.primary[1] == target


def coefficient_cell(coefficient: Coefficient) -> Cell:
    """Return the cell of a coefficient with its interval over families."""
    return number(coefficient.value, coefficient.ci)


def _clear_cell(coefficient: Coefficient) -> Cell:
    """Return the cell of a coefficient alone, in bold if its interval excludes 0."""
    return Cell(fixed(coefficient.value), is_strong=excludes_zero(coefficient.ci))


def excludes_zero(ci: tuple[float, float] | None) -> bool:
    """Return whether an interval is known and lies on one side of 0."""
    return ci is not None and not ci[0] <= 0 <= ci[1]


def _rivals(summary: Summary, target: str) -> list[str]:
    """Return the ranked scores without the ceiling, which is accuracy itself."""
    return [measure for measure in ranked_measures(summary, target) if measure != CEILING]


def _unknown(summary: Summary, target: str) -> set[str]:
    """Return the scores without a correlation; the first table gives the reasons."""
    return {
        measure
        for measure, by_target in summary.correlations.items()
        if target in by_target and by_target[target].spearman.value is None
    }


def remarks(reasons: Mapping[str, str], of: int) -> str:
    """Return each reason once, preceded by the names it applies to, or by "All" if they number ``of``."""
    names_of: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names_of.setdefault(reason, []).append(name)
    return " ".join(
        f"{'All' if len(names) == of > 1 else ', '.join(names)}: {reason}."
        for reason, names in names_of.items()
    )


def _correlation_table(summary: Summary, target: str) -> Table:
    """Return the correlations of every score that has one; the note names the others."""
    standings = summary.standings[target]
    order = ranked_measures(summary, target)
    counts = {summary.correlations[measure][target].n for measure in order}
    reasons: dict[str, str] = {}
    records: list[dict[str, AnyCell]] = []
    corrected: dict[str, bool] = {}
    for measure in order:
        correlation = summary.correlations[measure][target]
        rho = correlation.spearman
        title = measure_title(measure)
        if rho.reason:
            reasons[title] = rho.reason
        elif measure == CEILING:
            reasons[title] = "accuracy itself on the subset, not a rival"
        if rho.value is None:
            continue
        record: dict[str, AnyCell] = {
            "Score": title,
            "Spearman": coefficient_cell(rho),
            "Rank": _rank_cell((standings.scores or {}).get(measure), len(standings.scores or ())),
        }
        # There is only one primary hypothesis, so its p needs no correction.
        is_hypothesis = (measure, target) == (PRIMARY_MEASURE, PRIMARY_TARGET)
        p = rho.p_families if is_hypothesis else rho.p_holm
        record["p"] = p_value(p)
        if p is not None:
            corrected[title] = not is_hypothesis
        if summary.primary is not None and _is_primary(summary, target):
            record[CLOSE_PAIRS] = _close_pairs_cell(summary.fidelity.get(measure))
            head = f"|rho| minus that of {measure_title(summary.primary[0])}"
            record[head] = _difference_cell(summary.differences.get(measure))
        record["Pearson"] = _clear_cell(correlation.pearson)
        record["Weighted Kendall"] = _clear_cell(correlation.weighted_kendall)
        if len(counts) > 1:
            record["n"] = correlation.n
        records.append(record)
    title = f"Scores and {target_title(target)}"
    if len(counts) == 1:
        title = f"{title}, n = {counts.pop()}"
    wide = (
        "Differences whose interval would span 1 or more have none."
        if _is_primary(summary, target)
        and any(one.ci and not shown_interval(one) for one in summary.differences.values())
        else ""
    )
    close = (
        f"{CLOSE_PAIRS}: {_close_pairs()}; by chance 50%." if _is_primary(summary, target) else ""
    )
    notes = (
        _p_note(corrected),
        close,
        wide,
        _static_note(summary, target),
        remarks(reasons, len(order)),
    )
    return table_of_records(title, records, note=" ".join(filter(None, notes)))


def _close_pairs() -> str:
    low, high = GAPS[CLOSE]
    return f"of two models {low:g} to {high:g} points apart, how often the score orders them right"


def _close_pairs_cell(fidelity: Fidelity | None) -> Cell:
    share = None if fidelity is None else fidelity.right[CLOSE]
    return NO_NUMBER if share is None else Cell(f"{share:.0%}")


def _p_note(corrected: Mapping[str, bool]) -> str:
    """Return a note on which p values are corrected for the number of scores; ``corrected`` is keyed by title."""
    plain = [title for title, is_corrected in corrected.items() if not is_corrected]
    if not corrected:
        return ""
    if not plain:
        return "p is corrected over scores and accuracies (Holm)."
    rest = "; the others are corrected over scores and accuracies (Holm)"
    return f"p of {', '.join(plain)}, the hypothesis, is uncorrected{rest if len(corrected) > 1 else ''}."


def _rank_cell(standing: Standing | None, of: int) -> Cell:
    """Return a rank, with its range if that spans at most half of the ranks; a wider one is uninformative."""
    if standing is None:
        return NO_NUMBER
    low, high = standing.ranks
    is_informative = low < high and 2 * (high - low + 1) <= of
    return Cell(str(standing.rank), f"({low} to {high})" if is_informative else "")


def _difference_cell(difference: Difference | None) -> Cell:
    if difference is None:
        return NO_NUMBER
    return Cell(fixed(difference.value), shown_interval(difference), is_clear(difference))


def is_clear(difference: Difference) -> bool:
    """Return whether the difference is significant at 5% after Holm's correction over the scores."""
    return difference.p_holm is not None and difference.p_holm < 0.05


def shown_interval(difference: Difference) -> str:
    """Return the interval of a difference as text; "" if it is unknown, or spans half of -1 to 1 or more."""
    ci = difference.ci
    return "" if ci is None or round(ci[1] - ci[0], 2) >= WIDEST else interval(ci)


def _static_note(summary: Summary, target: str) -> str:
    """Return a note on which scores are shown to beat the best ranker that looks at no image."""
    standings = summary.standings[target]
    static, scores = standings.static, standings.scores
    if static is None or not scores:
        return ""
    beaten = {
        measure: standing.beyond_static_ci[0] > 0
        for measure, standing in scores.items()
        if standing.beyond_static_ci is not None and measure != static
    }
    if not beaten:
        return ""
    static_title = f"{measure_title(static)}, the best ranker that looks at no image"
    better = [measure_title(name) for name, is_better in beaten.items() if is_better]
    others = [measure_title(name) for name, is_better in beaten.items() if not is_better]
    if not better:
        return f"No score is shown to beat {static_title}."
    if not others:
        return f"Every score is shown to beat {static_title}."
    if len(better) <= len(others):
        return f"Shown to beat {static_title}: {', '.join(better)}."
    return f"All are shown to beat {static_title}, but {', '.join(others)}."


def _within_groups_table(summary: Summary, target: str) -> Table:
    records: list[dict[str, AnyCell]] = []
    for measure in ranked_measures(summary, target):
        cells = _group_cells(summary, measure, target)
        if cells:
            records.append({"Score": measure_title(measure), **cells})
    return table_of_records(f"Spearman's rho within groups, {target_title(target)}", records)


def _group_cells(summary: Summary, measure: str, target: str) -> dict[str, AnyCell]:
    """Return rho within each group; empty if it is undefined in all of them."""
    found = {
        group: by_measure.get(measure, {}).get(target)
        for group, by_measure in summary.within_groups.items()
    }
    if not any(c is not None and c.spearman.value is not None for c in found.values()):
        return {}
    sizes = {
        group: max((of[target].n for of in by_measure.values() if target in of), default=0)
        for group, by_measure in summary.within_groups.items()
    }
    cells: dict[str, AnyCell] = {}
    for group, correlation in found.items():
        cell = NO_NUMBER if correlation is None else _clear_cell(correlation.spearman)
        if correlation is not None and correlation.n != sizes[group]:
            cell = Cell(cell.value, f"n = {correlation.n}", cell.is_strong)
        cells[f"{group} (n = {sizes[group]})"] = cell
    return cells


def _regression_table(summary: Summary, target: str) -> Table:
    """Return the regression lines; for the primary target also how they predict unseen families."""
    is_primary = _is_primary(summary, target)
    order, explained = _rivals(summary, target), _unknown(summary, target)
    reasons: dict[str, str] = {}
    records: list[dict[str, AnyCell]] = []
    for measure in order:
        fit = summary.regression[measure][target]
        prediction = summary.predictions.get(measure) if is_primary else None
        reason = fit.reason or (prediction.reason if prediction else None)
        if reason and measure not in explained:
            reasons[measure_title(measure)] = reason
        if fit.slope is None:
            continue
        slope_ci = significant_interval(fit.ci_families) if fit.ci_families else ""
        record: dict[str, AnyCell] = {
            "Score": with_unit(measure_title(measure), measure_unit(measure)),
            "Slope": Cell(significant(fit.slope), slope_ci),
            "Intercept": significant(fit.intercept),
        }
        if is_primary:
            r2, error = NO_NUMBER, NO_NUMBER
            if prediction is not None:
                r2 = number(prediction.r2, prediction.r2_ci)
                error = number(prediction.mean_absolute_error, digits=1)
            record |= {f"R², unseen {summary.unit}": r2, "Mean absolute error": error}
        records.append(record)
    title = with_unit(target_title(target), target_unit(target) or "")
    note = remarks(reasons, len(order))
    return table_of_records(f"{title[0].upper()}{title[1:]}", records, note=note)


def sections(summary: Summary) -> list[Section]:
    """Return the sections on choosing by a score, possible confounders, and robustness."""
    if summary.primary is None:
        return []
    score, accuracy = summary.primary
    measure, target = measure_title(score), target_title(accuracy)
    order = _rivals(summary, accuracy)
    unit = summary.unit
    return [
        Section(
            "choice",
            "Choosing by a score",
            prose("choice", unit=unit),
            [_regret_table(summary, accuracy, order), _fidelity_table(summary, order)],
        ),
        Section(
            "controls",
            "Possible confounders",
            prose("controls", groups="yes" if summary.within_groups else ""),
            [_partial_table(summary, accuracy, order), _multiple_table(summary.multiple, unit)],
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


def compared_section(comparison: Comparison, place: int = 1) -> Section:
    """Return the section on another run, the ``place``-th one of a page."""
    name = "compared" if place == 1 else f"compared_{place}"
    is_same = comparison.is_same_images
    text = prose(
        "compared",
        changed="; ".join(comparison.settings) or "none that run.json records",
        name=comparison.name,
        only_here=str(comparison.only_here),
        only_there=str(comparison.only_there),
        is_same_images=is_same,
        best=_best_in_both(comparison),
    )
    tables = [_compared_table(comparison)]
    if comparison.accuracies:
        tables.insert(0, _accuracies_in_both(comparison))
    # Values from different images are not on the same scale.
    figures = []
    if is_same and np.isfinite(comparison.primary).all(axis=0).any():
        drawing = compared(*comparison.primary, "dsmi_z_y", ("this run", comparison.name))
        figures = [Illustration(name, drawing, prose("compared_figure"))]
    return Section(name, f"Compared with {comparison.name}", text, tables, figures)


def _best_in_both(comparison: Comparison) -> str:
    """Return a sentence on the most accurate model here, in the other run, and in the mean of both."""
    models = comparison.accuracies
    if not models:
        return ""
    here = max(models, key=lambda model: model.here)
    there = max(models, key=lambda model: model.there)
    if here is there:
        return f"{here.model} has the highest accuracy in both."
    mean = f"{models[0].model} has the highest mean of the two"
    return (
        f"{here.model} has the highest accuracy here, {there.model} in {comparison.name}; {mean}. "
        "Each page says which models cannot be told apart."
    )


def _accuracies_in_both(comparison: Comparison) -> Table:
    heads = ["Model", "Accuracy here (%)", "Rank", f"in {comparison.name} (%)", "Rank"]
    models = comparison.accuracies
    ranks = [
        rankdata([-getattr(model, run) for model in models], "min") for run in ("here", "there")
    ]
    rows: list[list[AnyCell]] = [
        [
            model.model,
            number(model.here, digits=1),
            int(here),
            number(model.there, digits=1),
            int(there),
        ]
        for model, here, there in zip(models, *ranks, strict=True)
    ]
    left_out = len(rows) - BEST_IN_BOTH
    note = f"{left_out} more models are in summary.json." if left_out > 0 else ""
    return table_of_words("Accuracy by the ridge probe", heads, rows[:BEST_IN_BOTH], note=note)


def _regret_table(summary: Summary, target: str, order: list[str]) -> Table:
    """Return the regret of each score, also among models of similar cost; the note names the scores without one."""
    bands = {name: by_score for name, by_score in summary.regrets.items() if name != ALL}
    overall = summary.regrets.get(ALL, {})
    explained = _unknown(summary, target)
    reasons: dict[str, str] = {}
    records: list[dict[str, AnyCell]] = []
    for score in order:
        regret = overall.get(score)
        if regret is None or not regret.lost:
            if regret is not None and regret.reason and score not in explained:
                reasons[measure_title(score)] = regret.reason
            continue
        record: dict[str, AnyCell] = {"Score": measure_title(score)}
        for k in TOP_K:
            record[f"Regret of {k}"] = fixed(regret.lost.get(k), 1)
        for band, by_score in bands.items():
            lost = by_score[score].lost if score in by_score else None
            record[f"Regret of {TOP_K[0]}, {band}"] = fixed((lost or {}).get(TOP_K[0]), 1)
        records.append(record)
    return table_of_records(None, records, note=remarks(reasons, len(order)))


def _fidelity_table(summary: Summary, order: list[str]) -> Table:
    """Return how often each score orders two models right, and its weakest correlation without one family."""
    records: list[dict[str, AnyCell]] = []
    for score in order:
        found = summary.fidelity.get(score)
        if found is None:
            continue
        record: dict[str, AnyCell] = {"Score": measure_title(score)}
        for (low, high), share in zip(GAPS, found.right, strict=True):
            band = f"{low:g} to {high:g}" if np.isfinite(high) else f"over {low:g}"
            record[f"{band} points"] = NO_NUMBER if share is None else f"{share:.0%}"
        record["Spearman"] = fixed(found.rho)
        record[f"Weakest without one {summary.unit}"] = Cell(
            fixed(found.lowest), found.without or ""
        )
        records.append(record)
    return table_of_records(
        "Pairs of models ordered right, by their difference in accuracy", records
    )


def _partial_table(summary: Summary, target: str, order: list[str]) -> Table:
    """Return the partial correlations of each score and its rank correlations within groups."""
    explained = _unknown(summary, target)
    reasons: dict[str, str] = {}
    records: list[dict[str, AnyCell]] = []
    for score in order:
        record: dict[str, AnyCell] = {"Score": measure_title(score)}
        is_known = False
        for controls, by_score in summary.partial.items():
            found = by_score.get(score)
            cell = NO_NUMBER
            if isinstance(found, Correlation):
                cell = coefficient_cell(found.pearson)
                is_known |= found.pearson.value is not None
            elif found and score not in explained:
                reasons[measure_title(score)] = found
            record[f"given {controls}"] = cell
        groups = _group_cells(summary, score, target)
        if summary.within_groups and not groups:
            empty = next(filter(None, (_group_cells(summary, s, target) for s in order)), {})
            groups = dict.fromkeys(empty, NO_NUMBER)
        is_known |= any(cell is not NO_NUMBER for cell in groups.values())
        if is_known:
            records.append(record | {f"within {group}": cell for group, cell in groups.items()})
    title = "Partial correlations"
    if summary.within_groups:
        title += ", and Spearman's rho within groups"
    return table_of_records(title, records, note=remarks(reasons, len(order)))


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
    """Return the paper's correlations next to those of this run; empty for other zoos."""
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
    is_same, has_target = comparison.is_same_images, comparison.target is not None
    heads = ["Score", "n", "Agreement (rho)"]
    if is_same:
        heads.append("Median change")
    if comparison.target is not None:
        target = target_title(comparison.target)
        heads += [f"rho with {target}, this run", f"rho with {target}, {comparison.name}"]
    rows: list[list[AnyCell]] = []
    for score in comparison.scores:
        row: list[AnyCell] = [measure_title(score.score), score.n, number(score.agreement)]
        if is_same:
            row.append(significant(score.median_change))
        if has_target:
            row += [number(score.here), number(score.there)]
        rows.append(row)
    return table_of_words("Scores", heads, rows)
