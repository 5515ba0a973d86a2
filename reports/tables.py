"""Sections of the page that are tables: what each says, and its numbers in words, alike for HTML and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..pipeline.schema import target_unit
from . import wording
from .comparison import Comparison
from .correlation import Correlation, Estimate
from .prediction import ALL, TAKEN, Regret
from .regression import GREATEST_INFLATION, SHOWN, Multiple
from .sample import CEILING, PRIMARY_MEASURE, PRIMARY_TARGET
from .standing import Difference, Standing
from .statistics import Summary

Cell = dict[str, str]
Table = dict[str, Any]
"""``title``, ``heads``, ``rows`` of cells (the first one names the row) and a ``note``."""


def sections(summary: Summary) -> list[dict[str, Any]]:
    """The sections between the correlations and the models: id, title, text and tables."""
    if summary.primary is None:
        return []
    target = wording.target_title(summary.primary[1])
    measure = wording.measure_title(summary.primary[0])
    unit, units = summary.unit, wording.plural(summary.unit)
    return [
        {
            "id": "choice",
            "title": "Prediction and choice",
            "text": (
                f"A score is useful if it predicts the {target} of models of an unseen {unit}, or if those it puts "
                f"first are good. Leave one out: each {unit} is predicted by the straight line through the others; R² "
                "compares with predicting their mean, and is negative when that is better. Regret: the percentage "
                "points lost by taking the best of a score's first 1, 5 or 10 models instead of the best of all; among "
                "equal scores chance decides, and its expectation is shown. Intervals (95%) are from resamples of "
                f"whole {units}; those of regret are rough, and too narrow where most resamples lose nothing."
            ),
            "tables": [_prediction_table(summary), *_band_tables(summary)],
        },
        {
            "id": "comparison",
            "title": f"Against {measure}",
            "text": (
                f"|Spearman's rho| of each score less that of {measure}, both with {target}, on the same rows and "
                f"the same resamples of whole {units}. p is that of the difference of Fisher's z, after Holm's "
                "correction over the scores."
            ),
            "tables": [_difference_table(summary.differences)],
        },
        {
            "id": "controls",
            "title": "What else it may be",
            "text": (
                "Larger models are more accurate and have other embeddings, and with sigma = sqrt(d) both scale and "
                "dimension of an embedding move DSE and DSMI by themselves. Partial correlations (Pearson, of what "
                "linear regression on the controls leaves, fitted anew in each resample), a "
                "multiple regression and a mixed model say what remains."
            ),
            "tables": [
                _partial_table(summary),
                _multiple_table(summary.multiple, summary.unit),
                *_mixed_table(summary),
            ],
        },
        {
            "id": "robustness",
            "title": "Robustness",
            "text": (
                f"The same correlation of {measure} and {target} on other choices of rows, each made by what was known "
                "before, never by the outcome. Exploratory: intervals, no p values. Near duplicates of the validation "
                "images in web-scale pretraining data cannot be excluded."
            ),
            "tables": [
                _robustness_table(summary),
                *_class_subsets_table(summary),
                *_published_table(summary),
                *_influence_table(summary),
            ],
        },
    ]


def compared_section(found: Comparison) -> dict[str, Any]:
    """What the page says of a second run."""
    changed = "; ".join(found.settings) or "none of those that run.json holds"
    rows = [
        [
            plain(wording.measure_title(c.score)), plain(c.n), cell(c.agreement),
            plain(wording.significant(c.median_change)), cell(c.here), cell(c.there),
        ]
        for c in found.scores
    ]  # fmt: skip
    target = wording.target_title(found.target) if found.target else "accuracy"
    heads = ["Score", "n", "Agreement (rho)", "Median change", f"rho with {target} here", "there"]
    return {
        "id": "compared",
        "title": f"Compared with {found.name}",
        "text": (
            f"Settings that differ (here, not there): {changed}. Models measured only here: {found.only_here}, only "
            f"there: {found.only_there}. Agreement is Spearman's rho of a score in one run with the same in the other."
        ),
        "tables": [_table(None, heads, rows)],
    }


def correlation_table(summary: Summary, target: str) -> Table:
    """Every score with one target: four coefficients, rank, what independence would say, and p values."""
    standings = summary.standings[target]
    standing_of = standings.scores or {}
    rows = []
    for m in wording.ranked_measures(summary, target):
        c = summary.correlations[m][target]
        rho = c.spearman
        primary = (m, target) == (PRIMARY_MEASURE, PRIMARY_TARGET)
        rows.append(
            [
                plain(wording.measure_title(m)),
                plain(c.n),
                estimate_cell(c.spearman),
                _rank_cell(standing_of.get(m)),
                *(estimate_cell(e) for e in (c.pearson, c.kendall, c.weighted_kendall)),
                plain(wording.interval(rho.ci_rows) if rho.ci_rows else wording.MISSING),
                plain(f"{wording.p_value(rho.p_families)} (primary)" if primary else wording.p_value(rho.p_holm)),
                plain(rho.reason or _standing_note(m, standing_of.get(m), standings.static)),
            ]
        )
    heads = [
        "Score", "n", "Spearman", "Rank", "Pearson", "Kendall", "Weighted Kendall", "Spearman, rows as independent",
        "p (Holm)", "Note",
    ]  # fmt: skip
    return _table(f"Scores and {wording.target_title(target)}", heads, rows, text_columns=(0, 9))


def _rank_cell(standing: Standing | None) -> Cell:
    if standing is None:
        return plain(wording.MISSING)
    low, high = standing.ranks
    return {"value": str(standing.rank), "ci": f"{low} to {high}"}


def _standing_note(score: str, standing: Standing | None, static: str | None) -> str:
    if score == CEILING:
        return "accuracy itself on the subset: no rival"
    if standing is None or static is None or standing.beyond_static_ci is None or standing.beyond_static_ci[0] > 0:
        return ""
    return f"not shown to beat {wording.measure_title(static)}"


def regression_table(summary: Summary, target: str) -> Table:
    """Least squares of one target on each score, with both kinds of errors."""
    rows = []
    for m in wording.ranked_measures(summary, target):
        f = summary.regression[m][target]
        rows.append(
            [
                plain(wording.with_unit(wording.measure_title(m), wording.measure_unit(m))),
                plain(f.n),
                plain(wording.significant(f.intercept)),
                plain(wording.significant(f.slope)),
                plain(" to ".join(map(wording.significant, f.ci_families)) if f.ci_families else wording.MISSING),
                plain(wording.p_value(f.p_families)),
                plain(" to ".join(map(wording.significant, f.ci)) if f.ci else wording.MISSING),
                plain(wording.p_value(f.p)),
                plain(wording.fixed(f.r2)),
                plain(f.reason or ""),
            ]
        )
    heads = [
        "Score", "n", "Intercept", "Slope", f"95% interval, clustered by {summary.unit}", "p, clustered",
        "95% interval, HC3 (independent rows)", "p, HC3", "R²", "Note",
    ]  # fmt: skip
    title = wording.with_unit(wording.target_title(target), target_unit(target) or "")
    return _table(f"{title[0].upper()}{title[1:]}", heads, rows, text_columns=(0, 9))


def cell(value: float | None, ci: Sequence[float] | None = None, digits: int = 2) -> Cell:
    """A number and, where there is one, its interval."""
    return {"value": wording.fixed(value, digits), "ci": wording.interval(ci, digits) if ci else ""}


def plain(text: object) -> Cell:
    """A cell of text."""
    return {"value": str(text), "ci": ""}


def estimate_cell(estimate: Estimate) -> Cell:
    """A coefficient with its families' interval."""
    return cell(estimate.value, estimate.ci)


def _ordered(summary: Summary) -> list[str]:
    assert summary.primary is not None
    return wording.ranked_measures(summary, summary.primary[1])


def _prediction_table(summary: Summary) -> Table:
    overall = summary.regrets.get(ALL, {})
    rows = []
    for score in _ordered(summary):
        p, r = summary.predictions[score], overall.get(score)
        why = p.reason or (r.reason if r else None) or ""
        rows.append(
            [
                plain(wording.measure_title(score)),
                cell(p.r2, p.r2_ci),
                cell(p.mean_absolute_error, digits=1),
                *(_regret_cell(r, k) for k in TAKEN),
                plain(why),
            ]
        )
    heads = ["Score", "R² (leave one out)", "Mean absolute error", *(f"Regret of {k}" for k in TAKEN), "Not computed"]
    return _table(None, heads, rows, text_columns=(0, len(heads) - 1))


def _regret_cell(found: Regret | None, k: int) -> Cell:
    if found is None or not found.lost:
        return plain(wording.MISSING)
    return cell(found.lost.get(k), (found.lost_ci or {}).get(k), digits=1)


def _band_tables(summary: Summary) -> list[Table]:
    bands = {name: by_score for name, by_score in summary.regrets.items() if name != ALL}
    if not bands:
        return []
    rows = []
    for score in _ordered(summary):
        found = [bands[name].get(score) for name in bands]
        shown = [
            plain(" / ".join(wording.fixed(r.lost.get(k), 1) for k in TAKEN) if r and r.lost else wording.MISSING)
            for r in found
        ]
        rows.append([plain(wording.measure_title(score)), *shown])
    return [_table("Regret of 1 / 5 / 10 among models of like cost", ["Score", *bands], rows)]


def _difference_table(differences: Mapping[str, Difference]) -> Table:
    order = sorted(differences, key=lambda s: _or(differences[s].value, -9.0), reverse=True)
    rows = [
        [
            plain(wording.measure_title(score)),
            plain(d.n),
            cell(d.value, d.ci),
            plain(wording.p_value(d.p_holm)),
            plain(d.reason or ""),
        ]
        for score in order
        for d in [differences[score]]
    ]
    return _table(None, ["Score", "n", "Difference of |rho|", "p (Holm)", "Not computed"], rows, text_columns=(0, 4))


def _partial_table(summary: Summary) -> Table:
    rows = []
    for score in _ordered(summary):
        found = [by_score.get(score) for by_score in summary.partial.values()]
        rows.append([plain(wording.measure_title(score)), *map(_partial_cell, found)])
    return _table("Partial correlations", ["Score", *(f"given {title}" for title in summary.partial)], rows)


def _partial_cell(found: Correlation | str | None) -> Cell:
    if isinstance(found, Correlation):
        return estimate_cell(found.pearson)
    return {"value": wording.MISSING, "ci": found or ""}


def _multiple_table(found: Multiple | None, unit: str) -> Table:
    heads = ["Predictor", "Percentage points a standard deviation", "p", "Variance inflation"]
    if found is None or found.reason:
        note = f"Not computed: {found.reason if found else 'there is no accuracy'}."
        return _table("Multiple regression", heads, [], note=note)
    rows = [
        [
            plain(wording.measure_title(c.name)),
            cell(c.value, c.ci),
            plain(wording.p_value(c.p)),
            cell(c.inflation, digits=1),
        ]
        for c in found.coefficients
    ]
    left = ", ".join(f"{wording.measure_title(name)} ({why})" for name, why in found.why.items())
    note = f"n = {found.n}, R² = {wording.fixed(found.r2)}; errors clustered by {unit}."
    note += f" Left out: {left}." if left else ""
    note += (
        f" While a variance inflation factor exceeds {GREATEST_INFLATION:.0f}, the last named of the predictors that "
        "exceed it is left out."
    )
    return _table("Multiple regression", heads, rows, note=note)


def _mixed_table(summary: Summary) -> list[Table]:
    found = summary.mixed
    assert summary.primary is not None
    title = f"Mixed model with a random intercept for each {summary.unit}"
    if found is None or found.reason:
        return [
            _table(title, ["Score", "Slope"], [], note=f"Not computed: {found.reason if found else 'no accuracy'}.")
        ]
    ends = f"{wording.significant(found.ci[0])} to {wording.significant(found.ci[1])}" if found.ci else ""
    rows = [
        [
            plain(wording.measure_title(summary.primary[0])),
            {"value": wording.significant(found.slope), "ci": ends},
            plain(wording.p_value(found.p)),
            cell(None if found.share is None else 100 * found.share, digits=0),
        ]
    ]
    heads = ["Score", "Slope (percentage points a unit)", "p", f"Variance between {wording.plural(summary.unit)} (%)"]
    return [_table(title, heads, rows)]


def _robustness_table(summary: Summary) -> Table:
    rows = [
        [
            plain(v.name),
            plain(v.n),
            plain(v.families),
            cell(v.effective, digits=1),
            estimate_cell(v.spearman),
            plain(v.spearman.reason or ""),
        ]
        for v in summary.robustness
    ]
    heads = ["Rows", "n", wording.plural(summary.unit).capitalize(), "Effective", "Spearman's rho", "Note"]
    return _table(None, heads, rows, text_columns=(0, 5))


def _class_subsets_table(summary: Summary) -> list[Table]:
    if not summary.class_subsets:
        return []
    quantiles = np.quantile(summary.class_subsets, [0, 0.25, 0.5, 0.75, 1])
    heads = ["Random halves of the classes", "Least", "Quarter", "Median", "Three quarters", "Greatest"]
    return [_table("Other classes", heads, [[plain(len(summary.class_subsets)), *(cell(float(q)) for q in quantiles)]])]


def _published_table(summary: Summary) -> list[Table]:
    if not summary.published:
        return []
    assert summary.primary is not None
    rows = []
    for score, theirs in summary.published.items():
        ours = summary.correlations.get(score, {}).get(summary.primary[1])
        for kind in ("pearson", "spearman"):
            own = getattr(ours, kind) if ours else Estimate()
            rows.append(
                [
                    plain(f"{wording.measure_title(score)}, {kind.capitalize()}"),
                    cell(theirs[kind], digits=3),
                    cell(own.value, own.ci, 3),
                ]
            )
    return [_table("The paper's figures beside these", ["", "Published", "Here"], rows)]


def _influence_table(summary: Summary) -> list[Table]:
    rows = [
        [
            plain(f"{i.model}@{i.img_size}"),
            cell(i.fitted, digits=1),
            cell(i.residual, digits=1),
            cell(i.leverage, digits=3),
            cell(i.cooks_distance, digits=3),
        ]
        for i in summary.influences[:SHOWN]
    ]
    heads = ["Model", "Fitted (%)", "Residual", "Leverage", "Cook's distance"]
    return [_table("Rows of the greatest influence on the regression", heads, rows)] if rows else []


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _table(
    title: str | None,
    heads: Sequence[str],
    rows: list[list[Cell]],
    *,
    note: str = "",
    text_columns: Sequence[int] = (0,),
) -> Table:
    last = len(heads) - 1
    if last in text_columns and not any(row[last]["value"] for row in rows):  # nothing to explain
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    return {
        "title": title, "heads": list(heads), "rows": rows, "note": note, "text": list(text_columns), "wordy": False,
    }  # fmt: skip
