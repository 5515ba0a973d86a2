"""What the template of the report shows, with numbers already formatted as text."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted, plural
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, UNDEFINED, parted_reasons
from dsmi_zoo.pipeline.store.record import RunRecord

from ..explorer.layout import Axes, Explorer, choice_axes, explorer
from ..statistics.ranking import COSTS, Ranking
from ..statistics.sample import names, scores_of, succeeded, texts, values
from ..statistics.summary import Summary
from ..wording import fixed
from .choice import is_choice, lead_of_choice, left_by_search, ranking_table, winners
from .correlations import target_tables
from .lead import answer, lead
from .provenance import (
    mixture_warnings,
    provenance,
    search_context,
    warnings_of_ceiling,
    warnings_of_images,
    warnings_of_readings,
)
from .rendering import script_hash


def page_context(
    rows: pd.DataFrame, run: RunRecord, summary: Summary, ranking: Ranking
) -> dict[str, Any]:
    """Return the template's variables, but for figures, sections and the release."""
    ok = succeeded(rows)
    by_target = summary.correlations.values()
    targets = list(dict.fromkeys(target for of_score in by_target for target in of_score))
    measured = {f"{entry['model']}@{entry['img_size']}" for entry in names(ok)}
    choosing = is_choice(run, ranking, targets)
    is_trial = run.config.random_weights
    dropped, untried = left_by_search(run.search, measured)
    explored = _explorer(rows, summary, ranking, targets, choosing)
    return {
        "folded": True,
        "name": run.catalog.name,
        "lead": _lead(rows, run, summary, ranking, measured, choosing),
        "title": _title(is_trial, choosing),
        "choosing": choosing,
        "winners": winners(rows, ranking) if choosing else None,
        "dropped": dropped,
        "untried": untried,
        "ranking": ranking_table(ranking),
        "search": search_context(run.search, measured),
        "models": summary.models,
        "warnings": warnings_of_images(run.subset) + _warnings(rows, summary),
        "unit": summary.unit,
        "plural": plural(summary.unit),
        "units": summary.units,
        "sample": summary.sample,
        "explorer": explored,
        "script_hashes": [script_hash(script) for script in explored.scripts] if explored else [],
        "answer": None if choosing or is_trial else answer(summary),
        "tables": [target_tables(summary, target) for target in targets],
        "failures": summary.failures,
        "missing": summary.missing,
        "provenance": provenance(rows, run),
        "saturated": len(summary.saturated),
        "median_dsmi": _median(ok, "dsmi_z_y"),
        "median_null": _median(ok, "dsmi_z_y_null"),
    }


def _explorer(
    rows: pd.DataFrame, summary: Summary, ranking: Ranking, targets: Sequence[str], choosing: bool
) -> Explorer | None:
    """Return an explorer of accuracy over cost for a choice, else of scores and accuracies; None without either."""
    if choosing:
        ok = succeeded(rows)
        costs = sorted(COSTS, key=lambda name: name != ranking.cost)
        known = [name for name in costs if np.isfinite(values(ok, name)).any()]
        return explorer(rows, choice_axes(scores_of(rows), targets, known)) if known else None
    if summary.primary:
        return explorer(rows, Axes(list(summary.correlations), targets, summary.primary))
    return None


def _title(is_trial: bool, choosing: bool) -> str:
    if is_trial:
        return "Does this zoo run? A dry run with untrained weights"
    if choosing:
        return "Which model suits these images?"
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
        return lead_of_choice(rows, ranking, run.search, measured)
    return lead(summary)


def _warnings(rows: pd.DataFrame, summary: Summary) -> list[str]:
    warnings = mixture_warnings(rows) + warnings_of_ceiling(rows)
    warnings += _undefined(succeeded(rows))
    warnings += warnings_of_readings(rows)
    saturated = len(summary.saturated)
    if saturated:
        of = f"{saturated} of {counted(summary.models['ok'], 'row')}"
        are = "is" if saturated == 1 else "are"
        warnings.append(f"{of} {are} saturated: sigma does not fit the scale of the embedding.")
    return warnings


def _undefined(ok: pd.DataFrame) -> list[str]:
    """Say why scores that rankings and choices are made by have no value in any row, with the most frequent reason."""
    reasons = [parted_reasons(text or "") for text in texts(ok, UNDEFINED)]
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
