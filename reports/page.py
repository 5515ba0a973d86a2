"""The report of a run: one self-contained page, the same in Markdown, summary.json and the figures."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.store import read_results, read_run, sweep_temporary, write_atomically
from reports import figures, wording
from reports import ranking as ranks
from reports.correlation import COEFFICIENTS, Correlation
from reports.provenance import mixture_warnings, provenance
from reports.sample import groups_of, succeeded, values
from reports.statistics import Summary, summarise

# A vector drawing of many points is larger than its picture.
LARGEST_SVG = 160_000
RANKING_FIGURE = "ranking"
_TEMPLATES: dict[str, Any] = {
    "loader": PackageLoader("reports"),
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}


def write_report(out: Path) -> Path:
    """Rebuild ``OUT/report`` from the rows of a run.

    Returns
    -------
    pathlib.Path
        ``OUT/report/index.html``.

    Raises
    ------
    InputError
        When ``out`` is no run.
    """
    out = Path(out)
    return write_page(read_results(out), read_run(out), out / "report")


def write_page(rows: pd.DataFrame, run: Mapping[str, Any], folder: Path) -> Path:
    """Write the report of ``rows`` and the run's record into ``folder``; figures of an earlier report go.

    Each file appears whole or not at all, ``index.html`` last.
    """
    summary, ranking = summarise(rows, run), ranks.rank(rows)
    drawn = draw(rows, summary, ranking)
    context = page_context(rows, run, summary, ranking, drawn)
    said = {"lead": context["lead"][0], "warnings": context["warnings"], "provenance": dict(context["provenance"])}
    content = {**summary.as_json(), **said, "ranking": ranking.as_json()}
    files = {f"figures/{name}.{kind}": getattr(f, kind) for name, f in drawn.items() for kind in ("png", "svg")}
    files["report.md"] = _markdown().get_template("report.md.j2").render(context).encode()
    files["summary.json"] = (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    files["index.html"] = _html().get_template("index.html.j2").render(context).encode()
    for name, data in files.items():
        write_atomically(folder / name, partial(_write, data))
    for path in (folder / "figures").glob("*.*"):
        if path.suffix in (".png", ".svg") and f"figures/{path.name}" not in files:
            path.unlink(missing_ok=True)
    for place in (folder, folder / "figures"):
        if place.is_dir():
            sweep_temporary(place)
    return folder / "index.html"


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def draw(rows: pd.DataFrame, summary: Summary, ranking: ranks.Ranking) -> dict[str, figures.Rendered]:
    """Every figure by its file's name: a scatter of each measure and accuracy, the forest plot, accuracy and cost."""
    drawn = {
        figure_name("scatter", m, t): figures.scatter(rows, m, t, correlation, summary.regression[m][t])
        for m, by_target in summary.correlations.items()
        for t, correlation in by_target.items()
    }
    if summary.primary:
        target = summary.primary[1]
        order = wording.ranked_measures(summary, target)
        drawn[figure_name("forest", target)] = figures.forest(summary.correlations, target, order)
    if ranking.cost:
        drawn[RANKING_FIGURE] = figures.ranking(ranking)
    return drawn


def figure_name(*parts: str) -> str:
    """A safe file name; names that had to be changed or cut get a hash, so that no two figures share a file."""
    raw = "-".join(parts)
    safe = re.sub(r"[^a-z0-9_-]+", "-", raw.lower())[:80]
    return safe if safe == raw else f"{safe}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:10]}"


def page_context(
    rows: pd.DataFrame,
    run: Mapping[str, Any],
    summary: Summary,
    ranking: ranks.Ranking,
    drawn: Mapping[str, figures.Rendered],
) -> dict[str, Any]:
    """What both templates show, numbers already in words."""
    ok = succeeded(rows)
    primary = figure_name("scatter", *summary.primary) if summary.primary else None
    forest = figure_name("forest", summary.primary[1]) if summary.primary else None
    targets = list(dict.fromkeys(t for by_target in summary.correlations.values() for t in by_target))
    shown = {name: {"name": name, "description": f.description, "uri": _data_uri(f)} for name, f in drawn.items()}
    catalog = run.get("catalog")
    name = catalog.get("name") if isinstance(catalog, Mapping) else None
    return {
        "name": str(name or "unnamed run"),
        "lead": wording.lead(summary)
        if targets or not ranking.models
        else [ranks.lead(ranking), *ranks.lead_of_search(run.get("search"))],
        "title": "How well do representation measures predict accuracy?"
        if targets or not ranking.models
        else "Which model suits these images?",
        "ranking": _ranking_table(ranking),
        "search": _search(run.get("search")),
        "ranking_figure": shown.get(RANKING_FIGURE),
        "models": summary.models,
        "warnings": _warnings(rows, summary),
        "coefficients": list(COEFFICIENTS.values()),
        "unit": summary.unit,
        "units": summary.units,
        "lead_figure": shown.get(primary or ""),
        "forest": shown.get(forest or ""),
        "scatters": [f for n, f in shown.items() if n not in (primary, forest, RANKING_FIGURE)],
        "tables": [_target_tables(summary, target) for target in targets],
        "model_table": _model_table(ok, summary, targets),
        "failures": summary.failures,
        "missing": summary.missing,
        "provenance": provenance(rows, run),
        "facts": _facts(ok, summary),
    }


def _warnings(rows: pd.DataFrame, summary: Summary) -> list[str]:
    found = mixture_warnings(rows)
    n, ok = len(summary.saturated), summary.models["ok"]
    if n:
        of = f"{n} of {wording.counted(ok, 'row')} {'is' if n == 1 else 'are'}"
        found.append(f"{of} saturated: sigma does not fit the scale of these embeddings.")
    return found


def _target_tables(summary: Summary, target: str) -> dict[str, Any]:
    order = wording.ranked_measures(summary, target)
    pooled = {m: summary.correlations[m][target] for m in order}
    best = next((m for m in order if pooled[m].pearson.value is not None), None)
    rivals = [wording.measure_title(m) for m in wording.rivals(summary, target)]
    groups = summary.within_groups
    within = {m: [group.get(m, {}).get(target) for group in groups.values()] for m in order}
    return {
        "title": wording.target_title(target),
        "rows": [
            {
                "measure": wording.measure_title(m),
                "best": m == best,
                "n": c.n,
                "reason": wording.reason(c),
                "cells": [_cell(c, kind) for kind in COEFFICIENTS],
            }
            for m, c in pooled.items()
        ],
        "rivals": wording.listed(rivals),
        "groups": list(groups),
        "within": [
            {"measure": wording.measure_title(m), "cells": [_within_cell(c) for c in found]}
            for m, found in within.items()
        ],
        "regression": [
            {
                "measure": wording.with_unit(wording.measure_title(m), wording.measure_unit(m)),
                "n": fit.n,
                "intercept": wording.significant(fit.intercept),
                "slope": wording.significant(fit.slope),
                "error": wording.significant(fit.standard_error),
                "ci": " to ".join(map(wording.significant, fit.ci)) if fit.ci else wording.MISSING,
                "p": wording.p_value(fit.p),
                "r2": wording.fixed(fit.r2),
                "reason": fit.reason,
            }
            for m in order
            for fit in [summary.regression[m][target]]
        ],
    }  # fmt: skip


def _cell(correlation: Correlation, kind: str) -> dict[str, str]:
    estimate = getattr(correlation, kind)
    return {"value": wording.fixed(estimate.value), "ci": wording.interval(estimate.ci) if estimate.ci else ""}


def _within_cell(correlation: Correlation | None) -> dict[str, str]:
    if correlation is None:
        return {"value": wording.MISSING, "ci": "", "n": "0"}
    return {**_cell(correlation, "pearson"), "n": str(correlation.n)}


def _model_table(ok: pd.DataFrame, summary: Summary, targets: list[str]) -> dict[str, Any]:
    """Every measured model, the most accurate first."""
    numbers = {
        **{f"{wording.target_title(t)} (%)": (t, 1) for t in targets},
        **{wording.measure_title(m): (m, 3) for m in summary.correlations},
        "d": ("embedding_dim", 0),
        "Median distance / sigma": ("median_distance_over_sigma", 2),
    }
    columns = {title: (values(ok, name), digits) for title, (name, digits) in numbers.items()}
    sort = -values(ok, summary.primary[1]) if summary.primary else np.arange(len(ok))
    grouped = bool(groups_of(ok))
    saturated = {(e["model"], e["img_size"]) for e in summary.saturated}
    sizes, groups = values(ok, "img_size"), ok["group"].astype(object) if grouped else ok["model"]
    names = list(zip(ok["model"].astype(str), sizes, groups, strict=True))
    return {
        "grouped": grouped,
        "heads": list(columns),
        "rows": [
            {
                "model": names[i][0],
                "size": wording.fixed(names[i][1], 0),
                "group": wording.MISSING if pd.isna(names[i][2]) else str(names[i][2]),
                "cells": [wording.fixed(float(column[i]), digits) for column, digits in columns.values()],
                "saturated": (names[i][0], names[i][1]) in saturated,
            }
            for i in np.argsort(sort, kind="stable")
        ],
    }


def _ranking_table(ranking: ranks.Ranking) -> dict[str, Any]:
    """Every model by its probe accuracy."""
    title, unit, _ = ranks.COSTS[ranking.cost] if ranking.cost else ("", "", False)
    return {
        "cost": wording.with_unit(title[:1].upper() + title[1:], unit) if title else "",
        "rows": [
            {
                "model": m.model,
                "size": m.img_size,
                "accuracy": wording.fixed(m.accuracy, 1),
                "ci": f"{wording.fixed(m.low, 1)} to {wording.fixed(m.high, 1)}",
                "dsmi": wording.fixed(m.dsmi_z_y),
                "cost": wording.significant(m.cost),
                "notes": ", ".join(
                    [*(["tied for first"] if m.tied_for_first else []), *(["Pareto front"] if m.pareto else [])]
                ),
            }
            for m in ranking.models
        ],
    }


def _search(note: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A search on a budget: its stages in words, and who was dropped on the way, the last ones first."""
    if not note:
        return None
    stages = [
        f"{wording.counted(stage['models'], 'model')} on {stage['images']} images ({stage['seconds']:.0f} s)"
        for stage in note["stages"]
    ]
    dropped = [(stage["images"], entry) for stage in reversed(note["stages"]) for entry in stage["dropped"]]
    return {
        "words": f"With {note['budget_s']:.0f} s to spend: {'; then '.join(stages)}.",
        "left_out": note["left_out"],
        "dropped": [
            {
                "model": entry["model"],
                "images": images,
                "accuracy": wording.fixed(entry["accuracy"], 1),
                "ci": f"{wording.fixed(entry['low'], 1)} to {wording.fixed(entry['high'], 1)}",
                "reason": entry["reason"],
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


def _data_uri(figure: figures.Rendered) -> str:
    kind, data = ("svg+xml", figure.svg) if len(figure.svg) <= LARGEST_SVG else ("png", figure.png)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def markdown_text(value: Any) -> str:
    """Text as one line of Markdown that shows it literally, also inside a table."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    line = re.sub(r"([\\`*\[\]|~#$])", r"\\\1", line)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)


def _html() -> Environment:
    return Environment(**_TEMPLATES, autoescape=True)


def _markdown() -> Environment:
    # Every value passes markdown_text, so that none can be forgotten in the template.
    return Environment(**_TEMPLATES, finalize=markdown_text)
