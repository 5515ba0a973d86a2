"""The report of a run: one self-contained page, the same in Markdown, summary.json and the figures."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted, plural
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.release import Release, is_release, rows_and_record
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

from .. import wording
from ..explorer.layout import Axes, Explorer, explorer, of_choice
from ..figures import scatter as figures
from ..figures.curves import over_epochs
from ..figures.forest import forest
from ..statistics import ranking as ranks
from ..statistics.comparison import Comparison, compare
from ..statistics.correlation import MIN_ROWS
from ..statistics.robustness import class_subset_correlations
from ..statistics.sample import names, one_row_per_weights, scores_of, succeeded, targets_of, values
from ..statistics.summary import Summary, ranked_measures, summarise
from . import analysis, choice, tables
from .lead import answer, lead
from .model_table import model_table
from .parts import Illustration, Section
from .provenance import mixture_warnings, provenance, search_context
from .ranking import ranking_table
from .release import card_context, front_matter
from .rendering import PageFiles, as_markdown, encoded, figure_name, script_hash

log = logging.getLogger(__name__)

SCATTERS = 4
MANY_ROWS = 200


def write_report(
    out: Path,
    compared_with: Path | None = None,
    class_subsets: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Rebuild ``OUT/report`` from the rows of a run.

    Parameters
    ----------
    compared_with
        Another run, or a published folder, which the report sets beside this one.
    class_subsets
        On how many random halves of the classes to repeat the primary correlation, from the kept embeddings.
    progress
        Called with the number of embeddings read for that, and of all.

    Returns
    -------
    pathlib.Path
        ``OUT/report/index.html``.

    Raises
    ------
    InputError
        When ``out`` or ``compared_with`` is no run.
    """
    out = Path(out)
    if is_release(out):
        raise InputError(
            f"{out} is a published folder, which holds its report: {out / 'index.html'}"
        )
    rows, run = read_results(out), read_run(out)
    comparison = None
    if compared_with is not None:
        comparison = compare(rows, run, *rows_and_record(compared_with), compared_with.name)
    target = next(iter(targets_of(rows)), None)
    halves: Sequence[float] = []
    if class_subsets and target:
        halves = class_subset_correlations(out, rows, run, target, class_subsets, progress)
    return write_page(rows, run, out / "report", comparison, halves)


def write_page(
    rows: pd.DataFrame,
    run: RunRecord,
    folder: Path,
    comparison: Comparison | None = None,
    class_subsets: Sequence[float] = (),
    release: Release | None = None,
) -> Path:
    """Write the report of ``rows`` and the run's record into ``folder``; figures of an earlier report go.

    Each file appears whole or not at all, ``index.html`` last. The report of a ``release`` names it, and has a data set
    card, ``README.md``.
    """
    # What takes longer than a moment is told.
    level = logging.INFO if len(rows) > MANY_ROWS else logging.DEBUG
    log.log(level, "writing the report of %s rows to %s", len(rows), folder)
    summary, ranking = summarise(rows, run, class_subsets), ranks.rank(rows)
    sections = analysis.sections(summary)
    if comparison is not None:
        sections.append(analysis.compared_section(comparison))
    drawn = draw(rows, summary, ranking)
    context = page_context(rows, run, summary, ranking, drawn, sections) | {"release": release}

    all_figures = [*drawn.all(), *(figure for section in sections for figure in section.figures)]
    others = {}
    if release is not None:
        card = as_markdown("card.md.j2", context | card_context(rows))
        others["README.md"] = encoded(front_matter(release, run) + card)
    page = PageFiles(
        "report",
        context,
        _numbers(summary, ranking, context, comparison),
        {figure.name: figure.drawing for figure in all_figures},
        others,
    )
    return page.write(folder)


def _numbers(
    summary: Summary,
    ranking: ranks.Ranking,
    context: Mapping[str, Any],
    comparison: Comparison | None,
) -> dict[str, Any]:
    """The content of ``summary.json``."""
    numbers: dict[str, Any] = {
        **summary.as_json(),
        "lead": context["lead"][0],
        "warnings": context["warnings"],
        "provenance": dict(context["provenance"]),
        "ranking": ranking.as_json(),
    }
    if comparison is not None:
        numbers["compared"] = {
            "with": comparison.name,
            "scores": [asdict(score) for score in comparison.scores],
        }
    return numbers


@dataclass(frozen=True)
class Drawn:
    """The figures of the page, each None where there is nothing to draw."""

    scatters: Sequence[Illustration] = ()
    forest: Illustration | None = None
    residuals: Illustration | None = None
    ranking: Illustration | None = None
    cpu_ranking: Illustration | None = None
    epochs: Illustration | None = None

    def all(self) -> list[Illustration]:
        """Those that there are."""
        single = (self.forest, self.residuals, self.ranking, self.cpu_ranking, self.epochs)
        return [*self.scatters, *(figure for figure in single if figure is not None)]


def draw(rows: pd.DataFrame, summary: Summary, ranking: ranks.Ranking) -> Drawn:
    """Scatter plots of the best scores, all scores at a glance, accuracy and cost, and curves over training."""
    scatters: list[Illustration] = []
    forest = residuals = None
    if summary.primary and _is_computed(summary):
        measure, target = summary.primary
        scatters = _scatters(rows, summary)
        forest = _forest(summary)
        residuals = Illustration(
            "residuals", figures.residuals(summary.influences, measure, target)
        )
    of_epochs = over_epochs(rows)
    by_cost = Illustration("ranking", figures.ranking(ranking)) if ranking.cost else None
    by_cpu_cost = None
    if ranking.second is not None:
        by_cpu_cost = Illustration("ranking_cpu", figures.ranking(ranking.second))
    epochs = None if of_epochs is None else Illustration("epochs", of_epochs)
    return Drawn(scatters, forest, residuals, by_cost, by_cpu_cost, epochs)


def _is_computed(summary: Summary) -> bool:
    """Whether there are rows enough for the primary correlation; figures of fewer would show nothing."""
    assert summary.primary is not None
    measure, target = summary.primary
    return summary.correlations[measure][target].n >= MIN_ROWS


def _scatters(rows: pd.DataFrame, summary: Summary) -> list[Illustration]:
    """The primary score's, and those of the scores that correlate most."""
    assert summary.primary is not None
    primary, target = summary.primary
    sample = one_row_per_weights(rows)
    best = ranked_measures(summary, target)[:SCATTERS]
    drawn = []
    for measure in dict.fromkeys((primary, *best)):
        correlation, regression = (
            summary.correlations[measure][target],
            summary.regression[measure][target],
        )
        drawing = figures.scatter(sample, measure, target, correlation, regression)
        drawn.append(Illustration(figure_name("scatter", measure, target), drawing))
    return drawn


def _forest(summary: Summary) -> Illustration:
    assert summary.primary is not None
    target = summary.primary[1]
    units = plural(summary.unit)
    order = ranked_measures(summary, target)
    static = summary.standings[target].static if target in summary.standings else None
    drawing = forest(summary.correlations, target, order, static, units)
    return Illustration(figure_name("forest", target), drawing)


def page_context(
    rows: pd.DataFrame,
    run: RunRecord,
    summary: Summary,
    ranking: ranks.Ranking,
    drawn: Drawn,
    sections: Sequence[Section] = (),
) -> dict[str, Any]:
    """What both templates show, numbers already in words."""
    ok = succeeded(rows)
    by_target = summary.correlations.values()
    targets = list(dict.fromkeys(target for of_score in by_target for target in of_score))
    measured = {f"{entry['model']}@{entry['img_size']}" for entry in names(ok)}
    choosing = choice.is_choice(run, ranking, targets)
    dropped, untried = choice.left_by_search(run.search, measured)
    explored = _explored(rows, summary, ranking, targets, choosing)
    return {
        "folded": True,
        "name": run.catalog.name,
        "lead": _lead(rows, run, summary, targets, ranking, measured),
        "title": _title(run, choosing),
        "choosing": choosing,
        "winners": choice.winners(rows, ranking) if choosing else None,
        "dropped": dropped,
        "untried": untried,
        "ranking": ranking_table(ranking),
        "search": search_context(run.search, measured),
        "ranking_figure": drawn.ranking,
        "cpu_figure": drawn.cpu_ranking,
        "models": summary.models,
        "warnings": _warnings(rows, summary),
        "unit": summary.unit,
        "plural": plural(summary.unit),
        "units": summary.units,
        "sample": summary.sample,
        "sections": sections,
        "explorer": explored,
        "script_hashes": [script_hash(script) for script in explored.scripts] if explored else [],
        "residual_figure": drawn.residuals,
        "epoch_figure": drawn.epochs,
        "answer": None if choosing or run.config.random_weights else answer(summary),
        "forest": drawn.forest,
        "scatters": drawn.scatters,
        "tables": [_target_tables(summary, target) for target in targets],
        "model_table": model_table(ok, summary, targets),
        "failures": summary.failures,
        "missing": summary.missing,
        "provenance": provenance(rows, run),
        "facts": _facts(ok, summary),
    }


def _explored(
    rows: pd.DataFrame, summary: Summary, ranking: ranks.Ranking, targets: list[str], choosing: bool
) -> Explorer | None:
    """The explorer: of accuracy over cost for a choice, else of scores and accuracies; None without either."""
    if choosing:
        ok = succeeded(rows)
        costs = sorted(ranks.COSTS, key=lambda name: name != ranking.cost)
        known = [name for name in costs if np.isfinite(values(ok, name)).any()]
        return explorer(rows, of_choice(scores_of(rows), targets, known)) if known else None
    if summary.primary:
        return explorer(rows, Axes(list(summary.correlations), targets, summary.primary))
    return None


def _title(run: RunRecord, choosing: bool) -> str:
    if run.config.random_weights:
        return "Does this zoo run? A trial with random weights"
    return (
        "Which model suits these images?"
        if choosing
        else "How well do representation measures predict accuracy?"
    )


def _lead(
    rows: pd.DataFrame,
    run: RunRecord,
    summary: Summary,
    targets: list[str],
    ranking: ranks.Ranking,
    measured: Collection[str],
) -> list[str]:
    """What the page says first."""
    if run.config.random_weights:
        return [
            "These networks have random weights, to try the zoo out: no number here says anything of published models.",
            f"{counted(summary.models['ok'], 'model')} of {summary.models['total']:,} came through.",
        ]
    if choice.is_choice(run, ranking, targets):
        return choice.lead_of_choice(rows, ranking, run.search, measured)
    return lead(summary)


def _warnings(rows: pd.DataFrame, summary: Summary) -> list[str]:
    warnings = mixture_warnings(rows)
    saturated = len(summary.saturated)
    if saturated:
        are = "is" if saturated == 1 else "are"
        of = f"{saturated} of {counted(summary.models['ok'], 'row')} {are}"
        warnings.append(f"{of} saturated: sigma does not fit the scale of these embeddings.")
    return warnings


def _target_tables(summary: Summary, target: str) -> dict[str, Any]:
    return {
        "correlations": tables.correlation_table(summary, target),
        "regression": tables.regression_table(summary, target),
        "within": tables.within_groups_table(summary, target) if summary.within_groups else None,
    }


def _facts(ok: pd.DataFrame, summary: Summary) -> dict[str, str | None]:
    """Medians that the explanation quotes; None where there is no value."""

    def median(column: str) -> str | None:
        numbers = values(ok, column)
        return (
            wording.fixed(float(np.nanmedian(numbers)), 3) if np.isfinite(numbers).any() else None
        )

    return {
        "dsmi": median("dsmi_z_y"),
        "null": median("dsmi_z_y_null"),
        "saturated": str(len(summary.saturated)),
    }
