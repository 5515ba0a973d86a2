"""Figures of curves: several panels with lines and bands over seeds."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

from dsmi_zoo.pipeline.store.schema import target_unit

from ..statistics.sample import groups_of, succeeded, targets_of, values
from ..wording import measure_title, measure_unit, target_title
from .canvas import COLOURS, MARKERS, QUIET, STYLE, Rendered, legend, one_line, render

EPOCH_MEASURES = ("dse_z", "dsmi_z_y", "dsmi_z_x", "probe_accuracy")
MAX_TICKS = 6
WIDTH, HEIGHT = 3.5, 3.1  # of a panel, in inches


@dataclass(frozen=True)
class Line:
    """One curve: mean, minimum and maximum of the repetitions at each x; all [k]."""

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Panel:
    """Axes with their lines; ``log_x`` makes the x axis logarithmic, with 0 at the left end."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log_x: bool = False


def lines_of(
    rows: pd.DataFrame, x: str, y: str, by: str | None, order: Sequence[Hashable] = ()
) -> list[Line]:
    """Return curves of ``y`` over ``x``, one for each value of the column ``by``, with bands over the rows of each x.

    Parameters
    ----------
    order
        The values of ``by``, in the order of the lines; sorted by default.
    """
    parts: dict[Any, pd.DataFrame] = {"": rows}
    if by is not None:
        there = rows[by].dropna().unique()
        labels = order or sorted(there, key=lambda label: (isinstance(label, str), label))
        parts = {label: rows[rows[by] == label] for label in labels}
    lines = []
    for label, part in parts.items():
        title = label if isinstance(label, str) else f"{label:g}"
        lines.append(_line(title, values(part, x), values(part, y)))
    return [line for line in lines if len(line.x)]


def over_epochs(rows: pd.DataFrame) -> Rendered | None:
    """Draw the measures over the column ``epoch``, by group; return None with fewer than two epochs."""
    rows = succeeded(rows)
    if "epoch" not in rows or rows["epoch"].nunique() < 2:
        return None
    by: str | None = "group" if groups_of(rows) else "architecture"
    if rows[by].nunique() < 2:
        by = None
    panels = []
    for name in (*EPOCH_MEASURES, *targets_of(rows)[:1]):
        if np.isfinite(values(rows, name)).any():
            title = measure_title(name) if target_unit(name) is None else target_title(name)
            unit = target_unit(name) or measure_unit(name)
            panels.append(Panel(title, "epoch", unit, lines_of(rows, "epoch", name, by)))
    titles = ", ".join(panel.title for panel in panels)
    return curves(panels, f"Over {int(rows['epoch'].nunique())} epochs: {titles}.")


def _line(label: str, x: np.ndarray, y: np.ndarray) -> Line:
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    at = np.unique(x)
    groups = [y[x == value] for value in at]
    mean = np.array([group.mean() for group in groups])
    low = np.array([group.min() for group in groups])
    high = np.array([group.max() for group in groups])
    return Line(label, at, mean, low, high)


def curves(
    panels: Sequence[Panel], description: str, columns: int = 3, is_for_files: bool = True
) -> Rendered:
    """Draw panels in rows of ``columns``, with one legend for all lines; only as SVG unless ``is_for_files``."""
    columns = min(columns, len(panels))
    lines_down = -(-len(panels) // columns)
    labels = dict.fromkeys(line.label for panel in panels for line in panel.lines)
    styles: dict[str, Any] = {}
    for i, label in enumerate(labels):
        styles[label] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
    with matplotlib.rc_context(STYLE):
        width = WIDTH * columns
        if len(panels) > 1 and columns == 1:  # for a narrow window
            legend_lines = sum(map(bool, labels))
        else:
            width, legend_lines = max(width, 5.2), 1
        size = (width, HEIGHT * lines_down + 0.3 + 0.2 * legend_lines)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        for i, panel in enumerate(panels):
            axes = figure.add_subplot(lines_down, columns, i + 1)
            for line in panel.lines:
                style, x = styles[line.label], _spaced(line.x, panel)
                colour = style["color"]
                axes.fill_between(x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(x, line.mean, markersize=3.5, linewidth=1.5, **style)
            if panel.log_x and panel.lines:
                ticks = np.unique(np.concatenate([line.x for line in panel.lines]))
                if len(ticks) > MAX_TICKS:
                    shown = np.linspace(0, len(ticks) - 1, MAX_TICKS).astype(int)
                    ticks = ticks[np.unique(shown)]
                axes.xaxis.set_major_locator(FixedLocator(list(_spaced(ticks, panel))))
                axes.xaxis.set_minor_locator(NullLocator())
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.set_xticklabels([f"{tick:g}" for tick in ticks])
            elif all((line.x == np.round(line.x)).all() for line in panel.lines):
                axes.xaxis.set_major_locator(MaxNLocator(nbins=MAX_TICKS, integer=True))
            if not panel.lines:
                axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=QUIET)
            axes.set_title(one_line(panel.title, 44), loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel(one_line(panel.x_label, 40))
            axes.set_ylabel(one_line(panel.y_label, 40))
        handles = [
            Line2D([], [], label=one_line(label, 36), **style)
            for label, style in styles.items()
            if label
        ]
        legend(figure, handles, room=int(16 * width) if width < 5.2 else 84)
        return render(figure, description, is_for_files)


def _spaced(x: np.ndarray, panel: Panel) -> np.ndarray:
    """Return the axis positions of values; a logarithmic axis has 0 at half of the smallest positive value."""
    if not panel.log_x:
        return x
    positive = [v for line in panel.lines for v in line.x if v > 0]
    least = min(positive, default=1.0)
    return np.log10(np.where(x > 0, x, least / 2))
