"""Figures of a report: scatter plots with their regression, and the correlations at a glance.

Drawn with matplotlib's objects alone (no pyplot, no global state); the same rows give the same bytes.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from dsmi_zoo._util.text import plural
from dsmi_zoo.pipeline.store.schema import target_unit

from ..statistics.correlation import Bootstraps, Correlation
from ..statistics.ranking import COSTS, Ranking
from ..statistics.regression import SHOWN, Influence, Regression, family_band
from ..statistics.sample import families_of, groups_of, succeeded, values
from ..wording import fixed, measure_title, measure_unit, target_title, with_unit

# Okabe and Ito's colours without yellow, which is too pale on white; markers tell groups apart without colour.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#333333",
    "#0072b2",
    "#d55e00",
    "#009e73",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "<")
INK, QUIET, GRID = "#222222", "#666666", "#e4e4e4"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "svg.hashsalt": "dsmi-zoo",
    "svg.fonttype": "path",
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Rendered:
    """A figure as files, and what it shows in words for those who cannot see it."""

    png: bytes
    svg: bytes
    description: str


def scatter(
    rows: pd.DataFrame, measure: str, target: str, correlation: Correlation, regression: Regression
) -> Rendered:
    """A measure against an accuracy: points, least-squares line, and its 95% band from resamples of families.

    Parameters
    ----------
    rows
        One row per entry; those that failed or lack one of the values are left out.
    measure, target
        Columns of ``rows``.
    correlation, regression
        Theirs, from ``dsmi_zoo.reports.statistics.summary``; the title and the line show them.
    """
    rows = succeeded(rows)
    x, y = values(rows, measure), values(rows, target)
    known = np.isfinite(x) & np.isfinite(y)
    title = f"{measure_title(measure)} and {target_title(target)}"
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 4.6)
        # Before the points: long legends take room from the axes, not from the data.
        handles = _points(axes, rows[known], x[known], y[known])
        column, families = families_of(rows)
        line = _line(axes, x[known], y[known], families[known], plural(column), regression)
        axes.set_xlabel(one_line(with_unit(measure_title(measure), measure_unit(measure)), 70))
        axes.set_ylabel(one_line(with_unit(target_title(target), target_unit(target) or ""), 50))
        head(axes, one_line(title, 62), _caption(correlation))
        if not known.any():
            _nothing(axes, "no model has both values")
        legend(figure, [*handles, *line])
        return render(figure, f"Scatter plot of {title}; {_caption(correlation)}.")


def ranking(ranked: Ranking) -> Rendered:
    """Probe accuracy against what a model costs, the Pareto front joined and named."""
    assert ranked.cost is not None
    name, unit, _ = COSTS[ranked.cost]
    known = [m for m in ranked.models if m.cost is not None]
    front = sorted((m for m in known if m.pareto), key=lambda m: m.cost or 0)
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 4.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        # The default one writes mathematics.
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        for models, marker, colour in (
            ([m for m in known if not m.tied_for_first], "o", COLOURS[0]),
            ([m for m in known if m.tied_for_first], "s", COLOURS[1]),
        ):
            axes.plot(
                [m.cost or 0.0 for m in models],
                [m.accuracy for m in models],
                marker,
                color=colour,
                alpha=0.8,
            )
        axes.plot(
            [m.cost or 0.0 for m in front], [m.accuracy for m in front], color=INK, linewidth=1
        )
        for m in front[:12]:
            axes.annotate(
                one_line(m.model, 28),
                (m.cost or 1, m.accuracy),
                (4, 4),
                textcoords="offset points",
                fontsize=7,
            )
        axes.set_xlabel(one_line(with_unit(name[:1].upper() + name[1:], unit), 70))
        axes.set_ylabel("Probe accuracy (%)")
        head(axes, f"Probe accuracy and {name}", f"{len(known)} models")
        legend(
            figure,
            [
                Line2D([], [], linestyle="", color=COLOURS[1], marker="s", label="tied for first"),
                Line2D([], [], linestyle="", color=COLOURS[0], marker="o", label="other models"),
                Line2D([], [], color=INK, linewidth=1, label="Pareto front"),
            ],
        )
        words = ", ".join(m.model for m in front)
        return render(
            figure,
            f"Probe accuracy against {name} of {len(known)} models; on the Pareto front: {words}.",
        )


def residuals(influences: Sequence[Influence], score: str, target: str) -> Rendered:
    """Residuals of the regression of target on score against the fitted values; the most influential rows are named."""
    unit = target_unit(target) or ""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 4.0)
        axes.axhline(0, color=QUIET, linewidth=1)
        size, alpha = (6.0, 0.8) if len(influences) <= 300 else (3.6, 0.5)
        axes.plot(
            [f.fitted for f in influences],
            [f.residual for f in influences],
            "o",
            markersize=size,
            alpha=alpha,
            color=COLOURS[0],
            markeredgecolor="white",
            markeredgewidth=0.5,
        )
        for f in influences[:SHOWN]:
            axes.annotate(
                one_line(f.model, 28),
                (f.fitted, f.residual),
                (4, 4),
                textcoords="offset points",
                fontsize=7,
                color=INK,
            )
        axes.set_xlabel(one_line(f"Fitted {with_unit(target_title(target), unit)}", 70))
        axes.set_ylabel(f"Residual ({'percentage points' if unit == '%' else unit})")
        head(
            axes, one_line(f"Residuals of {target_title(target)} on {measure_title(score)}", 62), ""
        )
        if not influences:
            _nothing(axes, "no regression")
        return render(figure, f"Residuals against fitted values of {len(influences)} models.")


def compared(a: np.ndarray, b: np.ndarray, measure: str, names: tuple[str, str]) -> Rendered:
    """One measure of the same models in two runs, against each other, with the diagonal."""
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(5.2, 4.6)
        axes.plot(
            a, b, "o", color=COLOURS[0], alpha=0.7, markeredgecolor="white", markeredgewidth=0.5
        )
        if len(a):
            low = min(a.min(), b.min())
            high = max(a.max(), b.max())
            axes.plot([low, high], [low, high], color=QUIET, linewidth=1)
        axes.set_xlabel(one_line(f"{measure_title(measure)} in {names[0]}", 70))
        axes.set_ylabel(one_line(f"in {names[1]}", 60))
        head(axes, one_line(f"{measure_title(measure)} in both runs", 62), f"{len(a)} models")
        return render(figure, f"{measure_title(measure)} of {len(a)} models in two runs.")


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def _points(axes: Axes, rows: pd.DataFrame, x: np.ndarray, y: np.ndarray) -> list[Line2D]:
    """Draw the points; hollow ones are saturated. Returns what the legend needs."""
    groups = groups_of(rows)
    groups = groups if len(groups) <= len(COLOURS) else []
    flags = (
        rows["saturated"].eq(True).fillna(False).to_numpy(bool)
        if "saturated" in rows
        else np.zeros(len(x), bool)
    )
    size, alpha = (6.5, 0.85) if len(x) <= 300 else (3.6, 0.5)
    handles = []
    names = rows["group"].fillna("").astype(str).to_numpy() if groups else np.full(len(x), "")
    for i, group in enumerate([*groups, ""]):
        colour, marker = (QUIET, ".") if groups and not group else (COLOURS[i], MARKERS[i])
        for hollow in (False, True):
            chosen = (names == group) & (flags == hollow)
            axes.plot(
                x[chosen],
                y[chosen],
                marker,
                markersize=size,
                alpha=alpha,
                color=colour,
                markerfacecolor="none" if hollow else colour,
                markeredgecolor=colour if hollow else "white",
                markeredgewidth=1.2 if hollow else 0.5,
            )
        if group:
            handles.append(_handle(one_line(group, 36), color=colour, marker=marker))
    if flags.any():
        handles.append(_handle("saturated", color=INK, marker="o", markerfacecolor="none"))
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
    """Draw the least-squares line and, from the report's own resamples of families, its band."""
    if regression.slope is None or regression.intercept is None or not len(x):
        return []
    grid = np.linspace(x.min(), x.max(), 100)
    axes.set_ylim(axes.get_ylim())  # a wide band must not squeeze the points
    axes.plot(grid, regression.intercept + regression.slope * grid, color=INK, linewidth=1.4)
    band = family_band(x, y, families, grid, Bootstraps())
    if band is not None:
        axes.fill_between(grid, *band, color=INK, alpha=0.10, linewidth=0)
    label = "least squares" if band is None else f"least squares, 95% band over {units}"
    return [Line2D([], [], color=INK, linewidth=1.4, label=label)]


def _caption(correlation: Correlation) -> str:
    rho = correlation.spearman
    if rho.value is None:
        return f"n = {correlation.n:,}; not computed: {rho.reason}"
    ci = f" [{fixed(rho.ci[0])}, {fixed(rho.ci[1])}]" if rho.ci else ""
    return f"n = {correlation.n:,}, Spearman's rho = {fixed(rho.value)}{ci}"


def head(axes: Axes, title: str, caption: str) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", pad=24 if caption else 8)
    axes.text(
        0,
        1.025,
        one_line(caption, 90),
        transform=axes.transAxes,
        fontsize=9.5,
        color=QUIET,
        va="bottom",
    )


def _nothing(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET)
    axes.set(xticks=[], yticks=[])


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Below the axes, in as many columns as the widest label leaves room for."""
    if handles:
        widest = max(len(str(h.get_label())) for h in handles)
        columns = max(1, min(len(handles), 84 // (widest + 6)))
        figure.legend(
            handles=list(handles),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=8.5,
            handletextpad=0.5,
            columnspacing=1.4,
            labelcolor=INK,
        )


def one_line(text: str, longest: int) -> str:
    """One printable line; a leading underscore would hide a label from the legend."""
    line = " ".join(re.sub(r"[^\S ]", " ", text).split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    line = "\N{WORD JOINER}" + line if line.startswith("_") else line
    return line if len(line) <= longest else line[: longest - 1] + "…"


def render(figure: Figure, description: str) -> Rendered:
    """The figure as PNG and SVG, the same bytes for the same drawing."""
    png, svg = BytesIO(), BytesIO()
    with warnings.catch_warnings():
        # A character that the font lacks shows as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
        # Which would only come to the same layout again, at half of the cost.
        figure.set_layout_engine("none")
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Rendered(png.getvalue(), svg.getvalue(), description)
