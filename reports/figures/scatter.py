"""Scatter plots of scores, accuracies and costs; and the forest plot of correlations and their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from dsmi_zoo._util.text import plural
from dsmi_zoo.pipeline.store.schema import target_unit

from ..statistics.correlation import Bootstraps, Coefficient, Correlation
from ..statistics.ranking import Ranking
from ..statistics.regression import SHOWN, Influence, Regression, family_band
from ..statistics.sample import (
    CEILING,
    COSTS,
    PRIMARY_MEASURE,
    families_of,
    groups_of,
    off_scale,
    succeeded,
    values,
)
from ..wording import cost_title, fixed, measure_title, measure_unit, target_title, with_unit
from .canvas import (
    COLOURS,
    INK,
    MARKERS,
    QUIET,
    STYLE,
    Rendered,
    canvas,
    head,
    legend,
    nothing,
    one_line,
    render,
)

NAMED_ON_FRONT = 12
MANY_POINTS = 300  # with more, points are small and pale


def score_scatter(
    rows: pd.DataFrame, measure: str, target: str, correlation: Correlation, regression: Regression
) -> Rendered:
    """Draw a score against an accuracy: points, least-squares line, and its 95% band over families.

    Parameters
    ----------
    rows
        One row per entry; those that failed or lack one of the values are left out.
    measure, target
        Columns of ``rows``.
    correlation, regression
        The results for these columns, shown as the caption and the line.
    """
    rows = succeeded(rows)
    x, y = values(rows, measure), values(rows, target)
    known = np.isfinite(x) & np.isfinite(y)
    column, families = families_of(rows)
    rows, x, y, families = rows[known], x[known], y[known], families[known]
    title = f"{measure_title(measure)} and {target_title(target)}"
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 4.6)
        handles = _points(axes, rows, x, y)
        handles += _line(axes, x, y, families, plural(column), regression)
        axes.set_xlabel(one_line(with_unit(measure_title(measure), measure_unit(measure)), 70))
        axes.set_ylabel(one_line(with_unit(target_title(target), target_unit(target) or ""), 50))
        head(axes, one_line(title, 62), _caption(correlation))
        if not known.any():
            nothing(axes, "no model has both values")
        legend(figure, handles)
        return render(figure, f"Scatter plot of {title}; {_caption(correlation)}.")


def ranking_scatter(ranking: Ranking) -> Rendered:
    """Draw accuracy against cost, with the models of the Pareto front joined by a line and labelled."""
    assert ranking.cost is not None
    name = COSTS[ranking.cost][0]
    known = [m for m in ranking.models if m.cost is not None]
    front = sorted((m for m in known if m.pareto), key=lambda m: m.cost or 0)
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 4.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        # The default formatter writes mathtext.
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        for is_tied, marker, colour in ((False, "o", COLOURS[0]), (True, "s", COLOURS[1])):
            costs = [m.cost or 0.0 for m in known if m.tied_for_first == is_tied]
            accuracies = [m.accuracy for m in known if m.tied_for_first == is_tied]
            axes.plot(costs, accuracies, marker, color=colour, alpha=0.8)
        costs, accuracies = [m.cost or 0.0 for m in front], [m.accuracy for m in front]
        axes.plot(costs, accuracies, color=INK, linewidth=1)
        for m in front[:NAMED_ON_FRONT]:
            _annotate(axes, m.model, (m.cost or 1, m.accuracy))
        axes.set_xlabel(one_line(cost_title(ranking.cost), 70))
        accuracy = ranking.quantity.title.capitalize()
        axes.set_ylabel(f"{accuracy} (%)")
        head(axes, f"{accuracy} and {name}", f"{len(known)} models")
        tied = Line2D([], [], linestyle="", color=COLOURS[1], marker="s", label="tied for first")
        others = Line2D([], [], linestyle="", color=COLOURS[0], marker="o", label="other models")
        joined = Line2D([], [], color=INK, linewidth=1, label="Pareto front")
        legend(figure, [tied, others, joined])
        on_front = ", ".join(m.model for m in front)
        words = f"{accuracy} against {name} of {len(known)} models; on the Pareto front: "
        return render(figure, f"{words}{on_front}.")


def residual_scatter(influences: Sequence[Influence], score: str, target: str) -> Rendered:
    """Draw the residuals of the regression of target on score; the most influential rows are named."""
    unit = target_unit(target) or ""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 4.0)
        axes.axhline(0, color=QUIET, linewidth=1)
        size, alpha = (6.0, 0.8) if len(influences) <= MANY_POINTS else (3.6, 0.5)
        style: dict[str, Any] = {"markersize": size, "alpha": alpha, **_white_edge(COLOURS[0])}
        axes.plot([f.fitted for f in influences], [f.residual for f in influences], "o", **style)
        for f in influences[:SHOWN]:
            _annotate(axes, f.model, (f.fitted, f.residual))
        axes.set_xlabel(one_line(f"Fitted {with_unit(target_title(target), unit)}", 70))
        axes.set_ylabel(f"Residual ({'percentage points' if unit == '%' else unit})")
        title = f"Residuals of {target_title(target)} on {measure_title(score)}"
        head(axes, one_line(title, 62), "")
        if not influences:
            nothing(axes, "no regression")
        return render(figure, f"Residuals against fitted values of {len(influences)} models.")


def compared(a: np.ndarray, b: np.ndarray, measure: str, names: tuple[str, str]) -> Rendered:
    """Draw one measure of the same models in two runs against each other, with the diagonal."""
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(5.2, 4.6)
        axes.plot(a, b, "o", alpha=0.7, **_white_edge(COLOURS[0]))
        if len(a):
            ends = [min(a.min(), b.min()), max(a.max(), b.max())]
            axes.plot(ends, ends, color=QUIET, linewidth=1)
        axes.set_xlabel(one_line(f"{measure_title(measure)} in {names[0]}", 70))
        axes.set_ylabel(one_line(f"in {names[1]}", 60))
        head(axes, one_line(f"{measure_title(measure)} in both runs", 62), f"{len(a)} models")
        return render(figure, f"{measure_title(measure)} of {len(a)} models in two runs.")


def _annotate(axes: Axes, model: str, at: tuple[float, float]) -> None:
    name = one_line(model, 28)
    axes.annotate(name, at, (4, 4), textcoords="offset points", fontsize=7)


def _white_edge(colour: str) -> dict[str, Any]:
    return {"color": colour, "markeredgecolor": "white", "markeredgewidth": 0.5}


def _points(axes: Axes, rows: pd.DataFrame, x: np.ndarray, y: np.ndarray) -> list[Line2D]:
    """Draw the points, hollow if off scale, and return their handles for the legend."""
    groups = groups_of(rows)
    groups = groups if len(groups) <= len(COLOURS) else []
    hollows = off_scale(rows)
    size, alpha = (6.5, 0.85) if len(x) <= MANY_POINTS else (3.6, 0.5)
    handles = []
    names = rows["group"].fillna("").astype(str).to_numpy() if groups else np.full(len(x), "")
    for i, group in enumerate([*groups, ""]):
        colour, marker = (QUIET, ".") if groups and not group else (COLOURS[i], MARKERS[i])
        style: dict[str, Any] = {"markersize": size, "alpha": alpha, **_white_edge(colour)}
        hollow = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.2}
        for is_hollow in (False, True):
            chosen = (names == group) & (hollows == is_hollow)
            axes.plot(x[chosen], y[chosen], marker, **(style | hollow if is_hollow else style))
        if group:
            handles.append(_handle(one_line(group, 36), color=colour, marker=marker))
    if hollows.any():
        handles.append(_handle("off scale", color=INK, marker="o", markerfacecolor="none"))
    return handles


def _handle(label: str, **style: Any) -> Line2D:
    return Line2D([], [], linestyle="none", markersize=6.5, label=label, **style)


def _line(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    families: pd.Series,
    units: str,
    regression: Regression,
) -> list[Line2D]:
    """Draw the least-squares line with its band over families, and return its handle for the legend."""
    if regression.slope is None or regression.intercept is None or not len(x):
        return []
    grid = np.linspace(x.min(), x.max(), 100)
    axes.set_ylim(axes.get_ylim())  # a wide band must not squeeze the points
    axes.plot(grid, regression.intercept + regression.slope * grid, color=INK, linewidth=1.4)
    band = family_band(x, y, families, grid, Bootstraps())
    label = "least squares"
    if band is not None:
        axes.fill_between(grid, *band, color=INK, alpha=0.10, linewidth=0)
        label = f"least squares, 95% band over {units}"
    return [Line2D([], [], color=INK, linewidth=1.4, label=label)]


def _caption(correlation: Correlation) -> str:
    rho = correlation.spearman
    if rho.value is None:
        return f"n = {correlation.n:,}; not computed: {rho.reason}"
    ci = f" [{fixed(rho.ci[0])}, {fixed(rho.ci[1])}]" if rho.ci else ""
    return f"n = {correlation.n:,}, Spearman's rho = {fixed(rho.value)}{ci}"


def forest(
    correlations: Mapping[str, Mapping[str, Correlation]],
    target: str,
    order: Sequence[str],
    static_ranker: str | None = None,
    units: str = "families",
) -> Rendered:
    """Draw Spearman's rho of every score in ``order`` with one target: intervals over ``units`` and over rows.

    The ceiling is a line, not a row. The best ranker without images, ``static_ranker``, has lines at plus and minus its
    rho.
    """
    rhos = {name: correlations[name][target].spearman for name in order if name != CEILING}
    named_rhos = dict(rhos)
    over_rows = "over rows, as if independent"
    primary = measure_title(PRIMARY_MEASURE)
    handles = [
        Line2D([], [], color=COLOURS[0], linewidth=1.8, label=f"95% interval over {units}"),
        Line2D([], [], color=COLOURS[0], linewidth=5, alpha=0.25, label=over_rows),
        Line2D([], [], color=COLOURS[1], marker="o", linewidth=1.8, label=primary),
    ]
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 1.6 + 0.26 * max(len(rhos), 1))
        axes.axvline(0, color=QUIET, linewidth=1)
        if CEILING in order:
            ceiling = named_rhos[CEILING] = correlations[CEILING][target].spearman
            style: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": "--"}
            handles += _vertical(axes, [ceiling.value], measure_title(CEILING), style)
        if static_ranker is not None:
            rho = correlations[static_ranker][target].spearman.value
            style = {"color": QUIET, "linewidth": 1.2, "linestyle": ":"}
            label = f"{measure_title(static_ranker)}: best predictor that uses no images"
            handles += _vertical(axes, [rho, None if rho is None else -rho], label, style)
        for row, (name, coefficient) in enumerate(rhos.items()):
            colour = COLOURS[1] if name == PRIMARY_MEASURE else COLOURS[0]
            _draw_row(axes, row, coefficient, colour)
        titles = [one_line(measure_title(name), 30) for name in rhos]
        axes.set_yticks(range(len(titles)), titles, color=INK)
        axes.set_xlim(-1.05, 1.05)
        axes.set_ylim(len(titles) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Spearman's rho")
        head(axes, one_line(f"Every score and {target_title(target)}", 62), "")
        legend(figure, handles)
        named = [f"{measure_title(name)} {fixed(rho.value)}" for name, rho in named_rhos.items()]
        words = f"Correlations with {target_title(target)}. Spearman: {'; '.join(named)}."
        return render(figure, words)


def _vertical(
    axes: Axes, places: Sequence[float | None], label: str, style: Mapping[str, Any]
) -> list[Line2D]:
    """Draw vertical lines and return their legend handle; empty if no place is defined."""
    known = [place for place in places if place is not None]
    for place in known:
        axes.axvline(place, **style)
    return [Line2D([], [], label=label, **style)] if known else []


def _draw_row(axes: Axes, row: int, rho: Coefficient, colour: str) -> None:
    """Draw one row: the coefficient and both intervals, or the reason why it is not computed."""
    for ci, width, shade in ((rho.ci, 1.8, 1.0), (rho.ci_rows, 5.0, 0.25)):
        if ci is not None:
            style: dict[str, Any] = {"linewidth": width, "alpha": shade, "solid_capstyle": "butt"}
            axes.plot(ci, [row, row], color=colour, **style)
    if rho.value is None:
        why = f"not computed: {rho.reason}"
        axes.text(-1.02, row, why, va="center", fontsize=8.5, color=QUIET)
    else:
        axes.plot([rho.value], [row], "o", color=colour, markersize=5.5)
