"""Variables of the report's template: the opening sentences, and numbers already formatted as text."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted, plural
from dsmi_zoo.pipeline.measures.catalog import (
    COMPARISONS,
    SENSIBLE_DISTANCES,
    UNDEFINED,
    parse_reasons,
)
from dsmi_zoo.pipeline.measures.own import column_of
from dsmi_zoo.pipeline.store.record import RunRecord

from ..statistics.correlation import Coefficient
from ..statistics.ranking import Ranking
from ..statistics.sample import COSTS, names, own_scores, scores_of, succeeded, texts, values
from ..statistics.summary import Summary
from ..wording import fixed, interval, measure_title, p_in_words, target_title
from .analysis import is_clear, shown_interval, target_tables
from .choice import (
    is_choice,
    lead_of_choice,
    left_by_search,
    ranking_table,
    undefined_table,
    winners,
)
from .provenance import (
    mixture_warnings,
    provenance,
    search_context,
    warnings_of_ceiling,
    warnings_of_images,
    warnings_of_readings,
)
from .rendering import script_hash

if TYPE_CHECKING:
    from ..explorer.layout import Explorer

FEW_UNITS = 20  # with fewer, a percentile interval is known to be too short
SIMPLE_SCORES = ("centre_accuracy", "neighbour_accuracy")


def lead(summary: Summary) -> list[str]:
    """Return the main result in one sentence, and the cautions about it."""
    models = summary.models
    if not models["ok"]:
        total = counted(models["total"], "model")
        return [f"None of the {total} was measured, so there is nothing to correlate."]
    measured = f"{counted(models['ok'], 'model')} {'was' if models['ok'] == 1 else 'were'} measured"
    if not summary.correlations:
        return [f"{measured}, but no measure has a value, so there is nothing to correlate."]
    if not any(summary.correlations.values()):
        return [
            f"{measured}, but no accuracy is known, so nothing can be correlated; the measures are below."
        ]
    if summary.primary is None:
        return [f"{measured}, but DSMI(Z;Y) has no value; other measures are below."]
    measure, target = summary.primary
    sentences = [_primary_sentence(summary, measure, target)]
    if summary.correlations[measure][target].spearman.value is not None:
        sentences += _simple_scores(summary, target) + _within_groups(summary, measure, target)
    return sentences


def _primary_sentence(summary: Summary, measure: str, target: str) -> str:
    names = f"{measure_title(measure)} and {target_title(target)}"
    primary = summary.correlations[measure][target]
    rho = primary.spearman
    if rho.value is None:
        return f"The correlation of {names} is not computed, because {rho.reason}."
    across = f"Across {counted(primary.n, 'model')}, "
    value = f"Spearman\N{RIGHT SINGLE QUOTATION MARK}s rho = {fixed(rho.value)}"
    if rho.ci is None:
        return f"{across}{names} correlate with {value}; its uncertainty is unknown ({rho.reason})."
    ci = f"95% interval {interval(rho.ci)}"
    units = counted(primary.units, summary.unit)
    if primary.units < FEW_UNITS:
        ci = f"{ci}, approximate: only {units}"
    elif primary.effective < FEW_UNITS:
        ci = f"{ci}, approximate: {units} of unequal sizes count as {primary.effective:.0f}"
    else:
        ci = f"{ci} over {units}"
    if rho.ci[0] <= 0 <= rho.ci[1]:
        return f"{across}{names} show no clear correlation ({value}, {ci}, includes 0)."
    return f"{across}{names} correlate with {value} ({ci})."


def answer(summary: Summary) -> str | None:
    """Return which score to use here and how far DSMI(Z;Y) trails it; None if scores cannot be ranked."""
    if summary.primary is None:
        return None
    measure, target = summary.primary
    standings = summary.standings.get(target)
    if standings is None or standings.best is None or standings.scores is None:
        return None
    of_all = counted(len(standings.scores), "score")
    if standings.best == measure:
        return f"Of {of_all}, none orders these models better than {measure_title(measure)}."
    rho = summary.correlations[standings.best][target].spearman
    best = (
        f"Of {of_all}, {measure_title(standings.best)} orders these models best: its "
        f"Spearman's rho with {target_title(target)} is {fixed(rho.value)} (95% interval {interval(rho.ci)})"
    )
    behind = summary.differences.get(standings.best)
    if behind is None or measure not in standings.scores:
        return f"{best}."
    title = measure_title(measure)
    if behind.value is None:
        return f"{best}. {title} is not compared with it: {behind.reason}."
    if behind.value <= 0:
        return f"{best}. On the {counted(behind.n, 'model')} with both, {title} is not behind it."
    so = "more than chance would explain" if is_clear(behind) else "so the gap may be chance"
    ci = shown_interval(behind)
    units = counted(summary.correlations[measure][target].units, summary.unit)
    ci = f"95% interval {ci}" if ci else f"no interval: over {units} it would span 1 or more"
    p = "" if behind.p_holm is None else f", p by Holm {p_in_words(behind.p_holm)}"
    return f"{best}. {title} trails by {fixed(behind.value)} in |rho| ({ci}{p}), {so}."


def _simple_scores(summary: Summary, target: str) -> list[str]:
    """Return the correlations of nearest centre and nearest neighbours, except for the best score."""
    known = []
    best = summary.standings[target].best if target in summary.standings else None
    for score in SIMPLE_SCORES:
        correlation = summary.correlations.get(score, {}).get(target)
        if score != best and correlation is not None and correlation.spearman.value is not None:
            known.append(f"{measure_title(score)}: rho = {fixed(correlation.spearman.value)}")
    return [f"{'; '.join(known)}."] if known else []


def _within_groups(summary: Summary, measure: str, target: str) -> list[str]:
    rhos: list[float] = []
    unclear = 0
    for by_measure in summary.within_groups.values():
        correlation = by_measure.get(measure, {}).get(target)
        if correlation is not None and correlation.spearman.value is not None:
            rhos.append(correlation.spearman.value)
            unclear += _is_unclear(correlation.spearman)
    if not rhos:
        return []
    low, high = fixed(min(rhos)), fixed(max(rhos))
    span = low if low == high else f"{low} to {high}"
    caution = ""
    if unclear == len(rhos):
        caution = "; each interval includes 0 or is undefined"
    elif unclear:
        verbs = "includes 0 or is" if unclear == 1 else "include 0 or are"
        caution = f"; {unclear} of the intervals {verbs} undefined"
    groups = counted(len(rhos), "group")
    return [f"Within the {groups}, rho of {measure_title(measure)} is {span}{caution}."]


def _is_unclear(rho: Coefficient) -> bool:
    return rho.ci is None or rho.ci[0] <= 0 <= rho.ci[1]


def page_context(
    rows: pd.DataFrame, run: RunRecord, summary: Summary, ranking: Ranking
) -> dict[str, Any]:
    """Return the template's variables, except figures, sections and the release."""
    ok = succeeded(rows)
    by_target = summary.correlations.values()
    targets = list(dict.fromkeys(target for of_score in by_target for target in of_score))
    measured = {f"{entry['model']}@{entry['img_size']}" for entry in names(ok)}
    choosing = is_choice(run, ranking, targets)
    is_trial = run.config.random_weights
    dropped, untried = left_by_search(run.search, measured)
    explored = _explorer(rows, summary, ranking, targets, choosing)
    own = [] if is_trial else own_sentences(rows, summary)
    return {
        "folded": True,
        "name": run.config.subset.title if choosing else shown_catalog(run.catalog.name),
        "images": f"{counted(run.subset.n_images, 'image')} in {counted(run.subset.n_classes, 'class')}",
        "undefined": undefined_table(rows, None if choosing else own_without_value(rows)),
        "lead": _lead(rows, run, summary, ranking, measured, choosing) + own,
        "own_scores": own,
        "title": _title(is_trial, choosing, run.config.subset.title),
        "choosing": choosing,
        "winners": winners(rows, ranking) if choosing and ranking.models else None,
        "dropped": dropped,
        "untried": untried,
        "ranking": ranking_table(ranking, rows),
        "search": search_context(run.search, measured),
        "models": summary.models,
        "warnings": warnings_of_images(run.subset, ok) + _warnings(rows, run, summary, ranking),
        "unit": summary.unit,
        "plural": plural(summary.unit),
        "units": summary.units,
        "sample": summary.sample,
        "explorer": explored,
        "script_hashes": _script_hashes(explored) if explored else [],
        "answer": None if choosing or is_trial else answer(summary),
        "tables": [target_tables(summary, target) for target in targets],
        "failures": summary.failures,
        "missing": summary.missing,
        "provenance": provenance(rows, run),
        "off_scale": len(summary.off_scale),
        "sensible": SENSIBLE_DISTANCES,
        "median_dsmi": _median(ok, "dsmi_z_y"),
        "median_null": _median(ok, "dsmi_z_y_null"),
    }


def _script_hashes(explored: "Explorer") -> list[str]:
    return [script_hash(script) for script in (explored.library, *explored.scripts)]


def _explorer(
    rows: pd.DataFrame, summary: Summary, ranking: Ranking, targets: Sequence[str], choosing: bool
) -> "Explorer | None":
    """Return an explorer of accuracy over cost for a choice, else of scores and accuracies; None without either."""
    if not (ranking.models if choosing else summary.primary):
        return None
    # Imported here: Bokeh takes a second, and the page of a few models has no explorer.
    from ..explorer.layout import Axes, choice_axes, explorer

    if choosing:
        ok = succeeded(rows)
        costs = sorted(COSTS, key=lambda name: name != ranking.cost)
        known = [name for name in costs if np.isfinite(values(ok, name)).any()]
        return explorer(rows, choice_axes(scores_of(rows), targets, known)) if known else None
    assert summary.primary is not None
    axes = Axes(list(summary.correlations), targets, summary.primary)
    return explorer(rows, axes, _intervals(summary))


def _intervals(summary: Summary) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the interval of rho of each score and accuracy that has one."""
    return {
        (score, target): correlation.spearman.ci
        for score, by_target in summary.correlations.items()
        for target, correlation in by_target.items()
        if correlation.spearman.ci is not None
    }


def shown_catalog(name: str) -> str:
    """Return the name of a catalogue without the folders of this machine."""
    return PurePath(name).name


def _title(is_trial: bool, choosing: bool, images: str) -> str:
    if is_trial:
        return "Does this zoo run? A dry run with untrained weights"
    if choosing:
        return f"Which model suits “{images}”?"
    return "How well do representation measures predict accuracy?"


def _lead(
    rows: pd.DataFrame,
    run: RunRecord,
    summary: Summary,
    ranking: Ranking,
    measured: Collection[str],
    choosing: bool,
) -> list[str]:
    if run.config.random_weights:
        return [
            "These networks have random weights, for a dry run: the numbers say nothing about published models.",
            f"{summary.models['ok']:,} of {counted(summary.models['total'], 'model')} ran without an error.",
        ]
    if choosing:
        return lead_of_choice(rows, ranking, run, measured)
    return lead(summary)


def _other_metric(run: RunRecord, ranking: Ranking) -> list[str]:
    """Return a warning if models are not ranked by the metric of the run's settings."""
    if ranking.metric == run.config.metric:
        return []
    return [
        "Models are ranked by accuracy: balanced accuracy needs subset.parquet, the list of images, which is missing "
        "or damaged; the same run again writes it."
    ]


def _warnings(rows: pd.DataFrame, run: RunRecord, summary: Summary, ranking: Ranking) -> list[str]:
    warnings = mixture_warnings(rows) + warnings_of_ceiling(rows) + _other_metric(run, ranking)
    warnings += _undefined(succeeded(rows))
    warnings += warnings_of_readings(rows)
    off_scale = len(summary.off_scale)
    if off_scale:
        of = f"{off_scale} of {counted(summary.models['ok'], 'row')}"
        low, high = SENSIBLE_DISTANCES
        warnings.append(
            f"Sigma does not fit the scale of {of}: DSE and DSMI say little where median_distance_over_sigma is below "
            f"{low:g} or above {high:g}."
        )
    return warnings


def _undefined(ok: pd.DataFrame) -> list[str]:
    """Return a warning on scores in % (used for ranking) that are undefined in every row, with the commonest reason."""
    reasons = [parse_reasons(text or "") for text in texts(ok, UNDEFINED)]
    names_of: dict[str, list[str]] = {}
    for score in COMPARISONS:
        given = Counter(of_row[score.name] for of_row in reasons if score.name in of_row)
        if score.unit == "%" and len(ok) and given.total() == len(ok):
            names_of.setdefault(given.most_common(1)[0][0], []).append(score.name)
    of = f"in {len(ok)} of {counted(len(ok), 'row')}"
    return [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} undefined {of}: {reason}."
        for reason, names in names_of.items()
    ]


def _median(rows: pd.DataFrame, column: str) -> str | None:
    numbers = values(rows, column)
    return fixed(float(np.nanmedian(numbers)), 3) if np.isfinite(numbers).any() else None


def own_sentences(rows: pd.DataFrame, summary: Summary) -> list[str]:
    """Return for each own score its correlation with accuracy, its rank among all scores, and the rows without it.

    A score that is undefined in every row appears only in the table of undefined scores.
    """
    ok = succeeded(rows)
    without = own_without_value(rows)
    return [
        " ".join(filter(None, (_standing(ok, summary, name), _lacking(ok, name), _code(ok, name))))
        for name in own_scores(ok)
        if name not in without
    ]


def own_without_value(rows: pd.DataFrame) -> set[str]:
    """Return the own scores that have no value in any measured row."""
    ok = succeeded(rows)
    return {name for name in own_scores(ok) if not np.isfinite(values(ok, name)).any()}


def _standing(ok: pd.DataFrame, summary: Summary, name: str) -> str:
    by_target = summary.correlations.get(name, {})
    target = summary.primary[1] if summary.primary else next(iter(by_target), None)
    if target is None or target not in by_target:
        known = int(np.isfinite(values(ok, name)).sum())
        of = f"{known} of {counted(len(ok), 'value')}"
        return f"{name}: {of}; no accuracy is known to compare it with."
    rho = by_target[target].spearman
    if rho.value is None:
        return f"{name}: its correlation with {target_title(target)} is not computed: {rho.reason}."
    ci = f"95% interval {interval(rho.ci)}" if rho.ci else f"no interval: {rho.reason}"
    models = counted(by_target[target].n, "model")
    what = (
        f"{name}: Spearman's rho with {target_title(target)} = {fixed(rho.value)} ({ci}, {models})"
    )
    standings = summary.standings[target]
    standing = (standings.scores or {}).get(name)
    if standing is None:
        left_out = (standings.left_out or {}).get(name) or standings.reason
        return f"{what}; not ranked among the scores: {left_out}."
    low, high = standing.ranks
    of = counted(len(standings.scores or {}), "score")
    if (low, high) == (1, len(standings.scores or {})):
        return f"{what}, rank {standing.rank} of {of}, though any rank is plausible."
    span = "" if low == high else f" (simultaneous 95% range {low} to {high})"
    return f"{what}, rank {standing.rank}{span} of {of}."


_NOT_YET = "not computed there yet, which the command that added it does"


def _lacking(ok: pd.DataFrame, name: str) -> str:
    """Return a sentence on how many rows have no value, and why; empty if all have one."""
    numbers, reasons = values(ok, name), texts(ok, UNDEFINED)
    lacking = np.flatnonzero(~np.isfinite(numbers))
    if not len(lacking):
        return ""
    why = Counter(parse_reasons(reasons[i] or "").get(name, _NOT_YET) for i in lacking)
    (reason, _), *more = why.most_common()
    further = f" (and {counted(len(more), 'other reason')})" if more else ""
    return f"No value for {len(lacking)} of {counted(len(ok), 'model')}: {reason}{further}."


def _code(ok: pd.DataFrame, name: str) -> str:
    """Return a warning if rows come from several versions of the score's code, as after an interruption."""
    codes: set[str] = set()
    for text in texts(ok, "own_measures_code"):
        codes |= {code for code in (text or "").split() if column_of(code) == name}
    if len(codes) < 2:
        return ""
    return f"Rows are of {len(codes)} versions of its code: repeat the command that added it."
