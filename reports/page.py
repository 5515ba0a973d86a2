"""The report of a run: one self-contained page, the same in Markdown, summary.json and the figures."""

import base64
import hashlib
import html
import json
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..data_catalog.errors import InputError
from ..pipeline.atomic_files import sweep_temporary, write_atomically
from ..pipeline.record import RunRecord, SearchNote
from ..pipeline.release import Release, is_release, rows_and_record
from ..pipeline.schema import is_accuracy, target_unit
from ..pipeline.store import read_results, read_run
from . import choice, figures, tables, wording
from . import ranking as ranks
from .card import card_context, front_matter
from .class_subsets import class_subset_correlations
from .comparison import Comparison, compare
from .correlation import Correlation
from .curves import over_epochs
from .explorer import Axes, explorer, of_choice
from .provenance import mixture_warnings, provenance
from .sample import BASELINES, CEILING, groups_of, names, one_row_per_weights, scores_of, succeeded, targets_of, values
from .statistics import Summary, summarise

log = logging.getLogger(__name__)

# A vector drawing of many points is larger than its picture.
LARGEST_SVG = 160_000
SCATTERS = 4
MANY_ROWS = 200
RANKING_FIGURE, RESIDUAL_FIGURE, COMPARED_FIGURE, EPOCH_FIGURE = "ranking", "residuals", "compared", "epochs"
CPU_FIGURE = "ranking_cpu"
# Of Markdown: an item of a list, a rule, an underlined heading.
STARTS_A_BLOCK = re.compile(r"[-+=]|\d+[.)]( |$)")
_TEMPLATES: dict[str, Any] = {
    "loader": PackageLoader("dsmi_zoo.reports"),
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}


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
        raise InputError(f"{out} is a published folder, which holds its report: {out / 'index.html'}")
    rows, run = read_results(out), read_run(out)
    comparison = None
    if compared_with is not None:
        comparison = compare(rows, run, *rows_and_record(compared_with), compared_with.name)
    target = next(iter(targets_of(rows)), None)
    halves = (
        class_subset_correlations(out, rows, run, target, class_subsets, progress) if class_subsets and target else []
    )
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
    level = logging.INFO if len(rows) > MANY_ROWS else logging.DEBUG  # what takes longer than a moment is told
    log.log(level, "writing the report of %s rows to %s", len(rows), folder)
    summary, ranking = summarise(rows, run, class_subsets), ranks.rank(rows)
    drawn = draw(rows, summary, ranking)
    if comparison is not None:
        drawn[COMPARED_FIGURE] = figures.compared(*comparison.primary, "dsmi_z_y", ("this run", comparison.name))
    context = page_context(rows, run, summary, ranking, drawn, comparison) | {"release": release}
    said = {"lead": context["lead"][0], "warnings": context["warnings"], "provenance": dict(context["provenance"])}
    content = {**summary.as_json(), **said, "ranking": ranking.as_json()}
    if comparison is not None:
        content["compared"] = {"with": comparison.name, "scores": [asdict(score) for score in comparison.scores]}
    files = {f"figures/{name}.{kind}": getattr(f, kind) for name, f in drawn.items() for kind in ("png", "svg")}
    files["report.md"] = encoded(_markdown().get_template("report.md.j2").render(context))
    files["summary.json"] = encoded(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if release is not None:
        card = _markdown().get_template("card.md.j2").render(context | card_context(rows))
        files["README.md"] = encoded(front_matter(release, run) + card)
    files["index.html"] = encoded(_html().get_template("index.html.j2").render(context))
    for name, data in files.items():
        write_atomically(folder / name, partial(_write, data))
    for path in (folder / "figures").glob("*.*"):
        if path.suffix in (".png", ".svg") and f"figures/{path.name}" not in files:
            path.unlink(missing_ok=True)
    for place in (folder, folder / "figures"):
        if place.is_dir():
            sweep_temporary(place)
    return folder / "index.html"


def encoded(text: str) -> bytes:
    """Text as UTF-8; what cannot be encoded, such as a byte of a folder's name that is no text, is a question mark."""
    return text.encode(errors="replace")


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def draw(rows: pd.DataFrame, summary: Summary, ranking: ranks.Ranking) -> dict[str, figures.Rendered]:
    """Every figure by its file's name: scatter plots of the best scores, all scores at a glance, accuracy and cost."""
    drawn: dict[str, figures.Rendered] = {}
    if summary.primary:
        measure, target = summary.primary
        sample = one_row_per_weights(rows)
        order = wording.ranked_measures(summary, target)
        for m in dict.fromkeys((measure, *order[:SCATTERS])):
            correlation, regression = summary.correlations[m][target], summary.regression[m][target]
            drawn[figure_name("scatter", m, target)] = figures.scatter(sample, m, target, correlation, regression)
        drawn[figure_name("forest", target)] = figures.forest(
            summary.correlations,
            target,
            order,
            summary.standings[target].static if target in summary.standings else None,
            wording.plural(summary.unit),
        )
        drawn[RESIDUAL_FIGURE] = figures.residuals(summary.influences, measure, target)
    if ranking.cost:
        drawn[RANKING_FIGURE] = figures.ranking(ranking)
    if ranking.second is not None:
        drawn[CPU_FIGURE] = figures.ranking(ranking.second)
    epochs = over_epochs(rows)
    if epochs is not None:
        drawn[EPOCH_FIGURE] = epochs
    return drawn


def figure_name(*parts: str) -> str:
    """A safe file name; names that had to be changed or cut get a hash, so that no two figures share a file."""
    raw = "-".join(parts)
    safe = re.sub(r"[^a-z0-9_-]+", "-", raw.lower())[:80]
    return safe if safe == raw else f"{safe}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:10]}"


def page_context(
    rows: pd.DataFrame,
    run: RunRecord,
    summary: Summary,
    ranking: ranks.Ranking,
    drawn: Mapping[str, figures.Rendered],
    comparison: Comparison | None = None,
) -> dict[str, Any]:
    """What both templates show, numbers already in words."""
    ok = succeeded(rows)
    forest = figure_name("forest", summary.primary[1]) if summary.primary else None
    targets = list(dict.fromkeys(t for by_target in summary.correlations.values() for t in by_target))
    shown = {name: {"name": name, "description": f.description, "uri": _data_uri(f)} for name, f in drawn.items()}
    measured = {f"{entry['model']}@{entry['img_size']}" for entry in names(ok)}
    choosing = choice.is_choice(run, ranking, targets)
    dropped, untried = choice.left_by_search(run.search, measured)
    explored = None
    if choosing:
        costs = sorted(ranks.COSTS, key=lambda name: name != ranking.cost)
        costs = [name for name in costs if np.isfinite(values(ok, name)).any()]
        explored = explorer(rows, of_choice(scores_of(rows), targets, costs)) if costs else None
    elif summary.primary:
        explored = explorer(rows, Axes(list(summary.correlations), targets, summary.primary))
    return {
        "name": run.catalog.name,
        "lead": _lead(rows, run, summary, targets, ranking, measured),
        "title": _title(run, choosing),
        "choosing": choosing,
        "winners": choice.winners(rows, ranking) if choosing else None,
        "dropped": dropped,
        "untried": untried,
        "ranking": ranks.ranking_table(ranking),
        "search": _search(run.search, measured),
        "ranking_figure": shown.get(RANKING_FIGURE),
        "cpu_figure": shown.get(CPU_FIGURE),
        "models": summary.models,
        "warnings": _warnings(rows, summary),
        "unit": summary.unit,
        "plural": wording.plural(summary.unit),
        "units": summary.units,
        "sample": summary.sample,
        "sections": [*tables.sections(summary), *([tables.compared_section(comparison)] if comparison else [])],
        "compared_figure": shown.get(COMPARED_FIGURE),
        "explorer": explored,
        "script_hashes": [_hash(script) for script in explored.scripts] if explored else [],
        "residual_figure": shown.get(RESIDUAL_FIGURE),
        "epoch_figure": shown.get(EPOCH_FIGURE),
        "answer": None if choosing or run.config.random_weights else wording.answer(summary),
        "forest": shown.get(forest or ""),
        "scatters": [f for name, f in shown.items() if name.startswith("scatter-")],
        "tables": [_target_tables(summary, target) for target in targets],
        "model_table": _model_table(ok, summary, targets),
        "failures": summary.failures,
        "missing": summary.missing,
        "provenance": provenance(rows, run),
        "facts": _facts(ok, summary),
    }


def _title(run: RunRecord, choosing: bool) -> str:
    if run.config.random_weights:
        return "Does this zoo run? A trial with random weights"
    return "Which model suits these images?" if choosing else "How well do representation measures predict accuracy?"


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
            f"{wording.counted(summary.models['ok'], 'model')} of {summary.models['total']:,} came through.",
        ]
    if choice.is_choice(run, ranking, targets):
        return choice.lead_of_choice(rows, ranking, run.search, measured)
    return wording.lead(summary)


def _warnings(rows: pd.DataFrame, summary: Summary) -> list[str]:
    found = mixture_warnings(rows)
    n, ok = len(summary.saturated), summary.models["ok"]
    if n:
        of = f"{n} of {wording.counted(ok, 'row')} {'is' if n == 1 else 'are'}"
        found.append(f"{of} saturated: sigma does not fit the scale of these embeddings.")
    return found


def _target_tables(summary: Summary, target: str) -> dict[str, Any]:
    order = wording.ranked_measures(summary, target)
    groups = summary.within_groups
    within = {m: [group.get(m, {}).get(target) for group in groups.values()] for m in order}
    return {
        "title": wording.target_title(target),
        "correlations": tables.correlation_table(summary, target),
        "regression": tables.regression_table(summary, target),
        "groups": list(groups),
        "within": [
            {"measure": wording.measure_title(m), "cells": [_within_cell(c) for c in found]}
            for m, found in within.items()
        ],
    }


def _within_cell(correlation: Correlation | None) -> dict[str, str]:
    if correlation is None:
        return {"value": wording.MISSING, "ci": "", "n": "0"}
    return {**tables.estimate_cell(correlation.spearman), "n": str(correlation.n)}


def _target_head(target: str) -> str:
    return wording.with_unit(wording.target_title(target), target_unit(target) or "")


def _model_table(ok: pd.DataFrame, summary: Summary, targets: list[str]) -> dict[str, Any]:
    """Every measured model, the most accurate first; top-5 accuracies and the catalogue's facts are the explorer's."""
    shown = [t for t in targets if not t.endswith("top5") or t == (summary.primary or ("", ""))[1]]
    said_by_the_catalogue = {score.name for score in BASELINES} - {CEILING}
    measured = [m for m in summary.correlations if m not in said_by_the_catalogue]
    numbers = {
        **{_target_head(t): (t, 1 if is_accuracy(t) else 2) for t in shown},
        **{wording.measure_title(m): (m, 3) for m in measured},
        "d": ("embedding_dim", 0),
        "Median distance / sigma": ("median_distance_over_sigma", 2),
    }
    columns = {title: (values(ok, name), digits) for title, (name, digits) in numbers.items()}
    has_error, errors = [name == "dsmi_z_y" for name, _ in numbers.values()], values(ok, "dsmi_z_y_se")
    sort = -values(ok, summary.primary[1]) if summary.primary else np.arange(len(ok))
    grouped = bool(groups_of(ok))
    saturated = {(e["model"], e["img_size"]) for e in summary.saturated}
    sizes, groups = values(ok, "img_size"), ok["group"].astype(object) if grouped else ok["model"]
    names = list(zip(ok["model"].astype(str), sizes, groups, strict=True))
    return {
        "grouped": grouped,
        "heads": list(columns),
        "errors": bool(np.isfinite(errors).any()),
        "rows": [
            {
                "model": names[i][0],
                "size": wording.fixed(names[i][1], 0),
                "group": wording.MISSING if pd.isna(names[i][2]) else str(names[i][2]),
                "cells": [
                    wording.fixed(float(column[i]), digits) + (wording.give_or_take(errors[i], digits) if m else "")
                    for (column, digits), m in zip(columns.values(), has_error, strict=True)
                ],
                "saturated": (names[i][0], names[i][1]) in saturated,
            }
            for i in np.argsort(sort, kind="stable")
        ],
    }


def _search(note: SearchNote | None, measured: Collection[str]) -> dict[str, Any] | None:
    """A search on a budget: its stages in words, and who was dropped on the way, the last ones first.

    Models that are ``measured`` on all images by now were not dropped for good.
    """
    if not note:
        return None
    stages = [
        f"{wording.counted(stage.models, 'model')} on {stage.images} images ({stage.seconds:.0f} s)"
        for stage in note.stages
    ]
    dropped = [
        (stage.images, entry)
        for stage in reversed(note.stages)
        for entry in stage.dropped
        if entry.model not in measured
    ]
    return {
        "words": f"With {note.budget_s:.0f} s to spend: {'; then '.join(stages)}.",
        "left_out": [model for model in note.left_out if model not in measured],
        "dropped": [
            {
                "model": entry.model,
                "images": images,
                "accuracy": wording.fixed(entry.accuracy, 1),
                "ci": f"{wording.fixed(entry.low, 1)} to {wording.fixed(entry.high, 1)}",
                "reason": entry.reason,
            }
            for images, entry in dropped
        ],
    }


def _facts(ok: pd.DataFrame, summary: Summary) -> dict[str, str | None]:
    """Medians that the explanation quotes; None where there is no value."""

    def median(column: str) -> str | None:
        numbers = values(ok, column)
        return wording.fixed(float(np.nanmedian(numbers)), 3) if np.isfinite(numbers).any() else None

    return {"dsmi": median("dsmi_z_y"), "null": median("dsmi_z_y_null"), "saturated": str(len(summary.saturated))}


def _hash(script: str) -> str:
    """How a Content-Security-Policy names an inline script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _data_uri(figure: figures.Rendered) -> str:
    kind, data = ("svg+xml", figure.svg) if len(figure.svg) <= LARGEST_SVG else ("png", figure.png)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def markdown_text(value: Any) -> str:
    """Text as one line of Markdown that shows it literally, also inside a table."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    line = re.sub(r"([\\`*\[\]|~#$])", r"\\\1", line)
    line = re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line) if STARTS_A_BLOCK.match(line) else line
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)


def _html() -> Environment:
    environment = Environment(**_TEMPLATES, autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def _markdown() -> Environment:
    # Every value passes markdown_text, so that none can be forgotten in the template.
    return Environment(**_TEMPLATES, finalize=_as_markdown)


def _as_markdown(value: Any) -> str:
    """What the template marks ``safe``, which is our own text, stays as it is."""
    return str(value) if isinstance(value, Markup) else markdown_text(value)
