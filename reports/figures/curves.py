"""Figures of curves: several panels side by side, each with lines and bands over seeds."""

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
from .scatter import COLOURS, MARKERS, QUIET, STYLE, Rendered, legend, one_line, render

EPOCH_MEASURES = ("dse_z", "dsmi_z_y", "dsmi_z_x", "probe_accuracy")
WIDTH, HEIGHT = 3.5, 3.1  # inches, of a panel


@dataclass(frozen=True)
class Line:
    """One curve: its mean at each x, and the least and greatest of the repetitions; all [k]."""

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Panel:
    """Axes with their lines; ``log_x`` spaces the x values by their logarithm (0 stands at the left end)."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log_x: bool = False


def lines_of(
    rows: pd.DataFrame, x: str, y: str, by: str | None, order: Sequence[Hashable] = ()
) -> list[Line]:
    """Curves of ``y`` over ``x``, one for each value of the column ``by``, with bands over the rows that share an x.

    Parameters
    ----------
    order
        The values of ``by``, in the order of the lines; by default they are sorted.
    """
    chosen: list[tuple[Hashable, pd.DataFrame]]
    if by is None:
        chosen = [("", rows)]
    else:
        there = rows[by].dropna().unique()
        labels = order or sorted(there, key=lambda label: (isinstance(label, str), label))
        chosen = [(label, rows[rows[by] == label]) for label in labels]
    lines = [_line(_named(label), values(part, x), values(part, y)) for label, part in chosen]
    return [line for line in lines if len(line.x)]


def over_epochs(rows: pd.DataFrame) -> Rendered | None:
    """The measures of the measured rows over their column ``epoch``, by group; None if there are no two epochs."""
    rows = succeeded(rows)
    if "epoch" not in rows or rows["epoch"].nunique() < 2:
        return None
    several = groups_of(rows) or rows["architecture"].nunique() > 1
    by = ("group" if groups_of(rows) else "architecture") if several else None
    measures = [
        m for m in (*EPOCH_MEASURES, *targets_of(rows)[:1]) if np.isfinite(values(rows, m)).any()
    ]
    panels = [
        Panel(_titled(m), "epoch", _unit(m), lines_of(rows, "epoch", m, by)) for m in measures
    ]
    return curves(
        panels, f"Over {int(rows['epoch'].nunique())} epochs: {', '.join(map(_titled, measures))}."
    )


def _titled(name: str) -> str:
    return measure_title(name) if target_unit(name) is None else target_title(name)


def _unit(name: str) -> str:
    return target_unit(name) or measure_unit(name)


def _named(label: Any) -> str:
    return label if isinstance(label, str) else f"{label:g}"


def _line(label: str, x: np.ndarray, y: np.ndarray) -> Line:
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    at = np.unique(x)
    groups = [y[x == value] for value in at]
    mean = np.array([group.mean() for group in groups])
    low = np.array([group.min() for group in groups])
    high = np.array([group.max() for group in groups])
    return Line(label, at, mean, low, high)


def curves(panels: Sequence[Panel], description: str, columns: int = 3) -> Rendered:
    """Panels in rows of so many columns, with one legend for the lines of all."""
    columns = min(columns, len(panels))
    lines_down = -(-len(panels) // columns)
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    style = {
        label: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, label in enumerate(labels)
    }
    with matplotlib.rc_context(STYLE):
        size = (max(WIDTH * columns, 5.2), HEIGHT * lines_down + 0.5)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        for i, panel in enumerate(panels):
            axes = figure.add_subplot(lines_down, columns, i + 1)
            for line in panel.lines:
                colour, marker = style[line.label]
                x = _spaced(line.x, panel)
                axes.fill_between(x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(x, line.mean, color=colour, marker=marker, markersize=3.5, linewidth=1.5)
            if panel.log_x and panel.lines:
                ticks = np.unique(np.concatenate([line.x for line in panel.lines]))
                ticks = (
                    ticks
                    if len(ticks) <= 6
                    else ticks[np.unique(np.linspace(0, len(ticks) - 1, 6).astype(int))]
                )
                axes.xaxis.set_major_locator(FixedLocator(list(_spaced(ticks, panel))))
                axes.xaxis.set_minor_locator(NullLocator())
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.set_xticklabels([f"{tick:g}" for tick in ticks])
            elif all((line.x == np.round(line.x)).all() for line in panel.lines):
                axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            if not panel.lines:
                axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=QUIET)
            axes.set_title(one_line(panel.title, 44), loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel(one_line(panel.x_label, 40))
            axes.set_ylabel(one_line(panel.y_label, 40))
        named = {label: drawn for label, drawn in style.items() if label}
        legend(
            figure,
            [
                Line2D([], [], color=c, marker=m, label=one_line(label, 36))
                for label, (c, m) in named.items()
            ],
        )
        return render(figure, description)


def _spaced(x: np.ndarray, panel: Panel) -> np.ndarray:
    """Where values stand on the axis: as they are, or by their logarithm, 0 as far left of the least as 1.5-fold."""
    if not panel.log_x:
        return x
    positive = [v for line in panel.lines for v in line.x if v > 0]
    least = min(positive, default=1.0)
    return np.log10(np.where(x > 0, x, least / 2))
