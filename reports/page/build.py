"""The report of a run: one self-contained page, summary.json and the figures; for a release, also its data set card."""

import html
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dsmi_zoo._util.text import plural
from dsmi_zoo.pipeline.measures.core.threads import one_blas_thread
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.release import ROWS, Release, refuse_release, rows_and_record
from dsmi_zoo.pipeline.store.schema import COLUMN_NAMES, COLUMNS, as_csv

from ..figures.canvas import Rendered
from ..figures.curves import over_epochs
from ..figures.scatter import forest, ranking_scatter, residual_scatter, score_scatter
from ..statistics.comparison import Comparison, compare
from ..statistics.correlation import MIN_ROWS
from ..statistics.layers import depths
from ..statistics.ranking import Ranking, rank
from ..statistics.sample import one_row_per_weights, own_rows
from ..statistics.summary import Summary, ranked_measures, summarise
from .analysis import compared_section, sections
from .choice import WINNERS
from .classes import (
    Thumbnails,
    class_context,
    class_files,
    image_names,
    images_context,
    judged_images,
    per_class,
    quantity_of,
)
from .context import page_context
from .export import correlation_table, latex_of_correlations
from .finetuned import summary_of, tuned_models, tuned_section
from .layers import layers_part
from .pairs import pairs_of, pairs_section, pairs_table, summary_of_pairs
from .rendering import Illustration, PageFiles, Section, as_markdown, encoded, figure_name
from .timed import timed_context

log = logging.getLogger(__name__)

TAGS = ("timm", "representation-learning", "transferability", "leaderboard")


def card_context(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the template variables of the card beyond those of the page."""
    known = [column for column in COLUMNS if not rows[column.name].isna().all()]
    return {
        "columns": known,
        "further": [str(name) for name in rows.columns if name not in COLUMN_NAMES],
    }


def front_matter(release: Release, run: RunRecord) -> str:
    """Return the YAML front matter of the card, for the hub: license, tags, and the file for the data viewer."""
    from huggingface_hub import DatasetCardData

    head = DatasetCardData(
        pretty_name=release.title,
        license=release.license or "unknown",
        tags=[*TAGS, run.subset.dataset.partition("/")[0]],
        configs=[{"config_name": "default", "data_files": ROWS}],
    )
    return f"---\n{head.to_yaml()}\n---\n\n"


MARK = "<!-- superseded -->"
"""Placeholder in released pages and cards for the notice of a newer release."""


def page_with_notice(page: str, newer: Release) -> str:
    """Return the page of an earlier release with a link to the newer one, two folders above."""
    words = html.escape(_words(newer))
    link = '<a href="../../index.html">Read that one.</a>'
    return page.replace(MARK, f'<p class="warning superseded" role="note">{words} {link}</p>', 1)


def card_with_notice(card: str, newer: Release) -> str:
    """Return the data set card of an earlier release with a link to the newer one."""
    return card.replace(MARK, f"> **{_words(newer)}** [Read that one.](../../README.md)", 1)


def _words(newer: Release) -> str:
    return f"Superseded by release {newer.id}."


SCATTERS = 2  # of the primary score and the best other one; the explorer draws all others
MANY_ROWS = 200


def write_report(
    out: Path, compared_with: Sequence[Path] = (), thumbnails: Thumbnails | None = None
) -> Path:
    """Rebuild ``OUT/report`` from the rows of a run.

    Parameters
    ----------
    compared_with
        Other runs, or published folders, to compare this one with.
    thumbnails
        Function that makes thumbnails of the images to look at; None shows only their names.

    Returns
    -------
    pathlib.Path
        ``OUT/report/index.html``.

    Raises
    ------
    InputError
        When ``out`` or one of ``compared_with`` is not a run.
    """
    out = Path(out)
    refuse_release(out)
    rows, run = rows_and_record(out)
    comparisons = [
        compare(rows, run, *rows_and_record(other), other.name) for other in compared_with
    ]
    return write_page(rows, run, out / "report", comparisons, source=out, thumbnails=thumbnails)


def write_page(
    rows: pd.DataFrame,
    run: RunRecord,
    folder: Path,
    comparisons: Sequence[Comparison] = (),
    release: Release | None = None,
    source: Path | None = None,
    thumbnails: Thumbnails | None = None,
) -> Path:
    """Write the report of ``rows`` into ``folder`` and delete the figures of an earlier report.

    Each file is replaced atomically, ``index.html`` last. The report of a ``release`` names it, and has a data set
    card, ``README.md``. ``source`` is the run's OUT or the published folder, with the images' classes. A release has
    no confusions, because its page must follow from its rows alone.
    """
    # A report of many rows takes a while, so announce it.
    level = logging.INFO if len(rows) > MANY_ROWS else logging.DEBUG
    log.log(level, "writing the report of %s rows to %s", len(rows), folder)
    quantity = quantity_of(rows, run, source)
    # For small matrices, threads that wait for each other cost more than they save.
    with one_blas_thread() if len(rows) <= MANY_ROWS else nullcontext():
        summary, ranking = summarise(rows, run), rank(rows, quantity)
    of_layers = depths(rows, quantity)
    layers = None if of_layers is None else layers_part(of_layers)
    rows = own_rows(rows)
    tuned = pairs = None
    if source is not None and release is None:
        tuned = tuned_models(rows, run, quantity, source)
        pairs = pairs_of(rows, quantity, source)
    figures = draw(rows, summary, ranking)
    analysis = sections(summary)
    correlations = correlation_table(summary)
    compared = [compared_section(one, place) for place, one in enumerate(comparisons, 1)]
    of_page = page_context(rows, run, summary, ranking)
    classes = seen = None
    if source is not None and of_page["choosing"]:
        best = (ranking.best or list(ranking.models[:1]))[:WINNERS]
        if best:
            classes = per_class(rows, run, best, source, recompute=release is None)
        if classes is not None:
            seen = judged_images(rows, ranking, *classes, image_names(source))
    timed = None
    if source is not None and release is None:
        timed = timed_context(rows, run, ranking, source)
    context = {
        **of_page,
        "timed": timed,
        "classes": None if classes is None else class_context(*classes),
        "to_look_at": None if seen is None else images_context(seen, thumbnails),
        "figures": figures,
        "has_correlations": not correlations.empty,
        "sections": analysis,
        "layers": None if layers is None else layers.section,
        "finetuned": None if tuned is None else tuned_section(tuned, quantity),
        "pairs": None if pairs is None else pairs_section(pairs, rows),
        "comparisons": compared,
        "release": release,
    }

    drawn = [layers.section] if layers is not None else []
    drawings = drawings_of(figures, [*analysis, *drawn, *compared])
    context["has_figures"] = bool(drawings)
    numbers: dict[str, Any] = {
        **summary.as_json(),
        "answer": context["answer"],
        "lead": context["lead"][0],
        "warnings": context["warnings"],
        "provenance": dict(context["provenance"]),
        "metric": ranking.metric,
        "ranking": ranking.as_json(),
    }
    if context["own_scores"]:
        numbers["own_scores"] = context["own_scores"]
    if tuned is not None:
        numbers["finetuned"] = summary_of(tuned, quantity)
    if pairs is not None:
        numbers["pairs"] = summary_of_pairs(pairs)
    if of_layers is not None:
        numbers["layers"] = of_layers.as_json()
    if comparisons:
        numbers["compared"] = [
            {
                "with": one.name,
                "is_same_images": one.is_same_images,
                "scores": [asdict(score) for score in one.scores],
                "accuracies": [asdict(model) for model in one.accuracies],
            }
            for one in comparisons
        ]
    others = {} if correlations.empty else correlation_files(summary, correlations)
    if layers is not None:
        others["layers.csv"] = as_csv(layers.table)
    if classes is not None:
        others |= {name: as_csv(table) for name, table in class_files(*classes).items()}
    if pairs is not None:
        others["pairs.csv"] = as_csv(pairs_table(pairs))
    if seen is not None:
        others["images.csv"] = as_csv(seen.table)
    if release is not None:
        card = as_markdown("card.md.j2", context | card_context(rows))
        others["README.md"] = encoded(front_matter(release, run) + card)
    return PageFiles("report.html.j2", context, numbers, drawings, others).write(folder)


def correlation_files(summary: Summary, table: pd.DataFrame) -> dict[str, bytes]:
    """Return the files of the correlations that the page links to, by name."""
    return {
        "correlations.csv": as_csv(table),
        "correlations.tex": encoded(latex_of_correlations(summary)),
    }


def drawings_of(figures: "Figures", analysis: Sequence[Section]) -> dict[str, Rendered]:
    """Return all drawings of a page by the names of their files."""
    drawings = {figure.name: figure.drawing for figure in figures.all()}
    for section in analysis:
        drawings |= {figure.name: figure.drawing for figure in section.figures}
    return drawings


def figures_of(out: Path) -> Mapping[str, bytes]:
    """Return the figures of a run's report as PDF, SVG and PNG, by the names of their files."""
    rows, run = rows_and_record(out)
    quantity = quantity_of(rows, run, out)
    summary, ranking = summarise(rows, run), rank(rows, quantity)
    of_layers = depths(rows, quantity)
    layers = [] if of_layers is None else [layers_part(of_layers).section]
    figures = draw(own_rows(rows), summary, ranking)
    drawings = drawings_of(figures, [*sections(summary), *layers])
    files: dict[str, bytes] = {}
    for name, drawing in drawings.items():
        files |= {f"{name}.pdf": drawing.pdf(), f"{name}.svg": drawing.svg}
        files[f"{name}.png"] = drawing.png
    return files


@dataclass(frozen=True)
class Figures:
    """The figures of the page; None where there is nothing to draw."""

    scatters: Sequence[Illustration] = ()
    forest: Illustration | None = None
    residuals: Illustration | None = None
    ranking: Illustration | None = None
    cpu_ranking: Illustration | None = None
    epochs: Illustration | None = None

    def all(self) -> list[Illustration]:
        """Return the figures that exist."""
        single = (self.forest, self.residuals, self.ranking, self.cpu_ranking, self.epochs)
        return [*self.scatters, *(figure for figure in single if figure is not None)]


def draw(rows: pd.DataFrame, summary: Summary, ranking: Ranking) -> Figures:
    """Draw the best scores, all scores at a glance, accuracy against cost, and curves over training."""
    scatters: list[Illustration] = []
    of_all = residuals = None
    if summary.primary:
        measure, target = summary.primary
        if summary.correlations[measure][target].n >= MIN_ROWS:
            scatters = _score_scatters(rows, summary, measure, target)
            of_all = _forest(summary, target)
            drawing = residual_scatter(summary.influences, measure, target)
            residuals = Illustration("residuals", drawing)
    by_cost = by_cpu_cost = None
    if ranking.cost:
        by_cost = Illustration("ranking", ranking_scatter(ranking))
    if ranking.second is not None:
        by_cpu_cost = Illustration("ranking_cpu", ranking_scatter(ranking.second))
    of_epochs = over_epochs(rows)
    epochs = None if of_epochs is None else Illustration("epochs", of_epochs)
    return Figures(scatters, of_all, residuals, by_cost, by_cpu_cost, epochs)


def _score_scatters(
    rows: pd.DataFrame, summary: Summary, primary: str, target: str
) -> list[Illustration]:
    sample = one_row_per_weights(rows)
    best = dict.fromkeys((primary, *ranked_measures(summary, target)))
    drawn = []
    for measure in list(best)[:SCATTERS]:
        correlation = summary.correlations[measure][target]
        regression = summary.regression[measure][target]
        drawing = score_scatter(sample, measure, target, correlation, regression)
        drawn.append(Illustration(figure_name("scatter", measure, target), drawing))
    return drawn


def _forest(summary: Summary, target: str) -> Illustration:
    order = ranked_measures(summary, target)
    static = summary.standings[target].static if target in summary.standings else None
    drawing = forest(summary.correlations, target, order, static, plural(summary.unit))
    return Illustration(figure_name("forest", target), drawing)
