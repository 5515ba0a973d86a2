"""The forest plot: the correlation of each score with accuracy, and its intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..statistics.correlation import Coefficient, Correlation
from ..statistics.sample import CEILING, PRIMARY_MEASURE
from ..wording import fixed, measure_title, target_title
from .canvas import COLOURS, INK, QUIET, STYLE, Rendered, canvas, head, legend, one_line, render


def forest(
    correlations: Mapping[str, Mapping[str, Correlation]],
    target: str,
    order: Sequence[str],
    static: str | None = None,
    units: str = "families",
) -> Rendered:
    """Draw Spearman's rho of every score in ``order`` with one target: intervals over ``units`` and over rows.

    The ceiling is a line, not a row. The best ranker without images, ``static``, has lines at plus and minus its rho.
    """
    shown = {name: correlations[name][target].spearman for name in order if name != CEILING}
    ceiling = correlations[CEILING][target].spearman if CEILING in order else None
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 1.6 + 0.34 * max(len(shown), 1))
        axes.axvline(0, color=QUIET, linewidth=1)
        handles = _handles_of_intervals(units)
        if ceiling is not None and ceiling.value is not None:
            handles.append(_ceiling(axes, ceiling.value))
        if static is not None:
            handles += _static(axes, static, correlations[static][target].spearman.value)
        for place, (name, rho) in enumerate(shown.items()):
            _score(axes, place, rho, COLOURS[1] if name == PRIMARY_MEASURE else COLOURS[0])
        _lay_out(axes, [one_line(measure_title(name), 30) for name in shown])
        head(axes, one_line(f"Every score and {target_title(target)}", 62), "")
        legend(figure, handles)
        return render(figure, _described(shown, ceiling, target))


def _handles_of_intervals(units: str) -> list[Line2D]:
    """Return the legend's handles of the marks in every row."""
    over_rows = "over rows, as if independent"
    primary = measure_title(PRIMARY_MEASURE)
    return [
        Line2D([], [], color=COLOURS[0], linewidth=1.8, label=f"95% interval over {units}"),
        Line2D([], [], color=COLOURS[0], linewidth=5, alpha=0.25, label=over_rows),
        Line2D([], [], color=COLOURS[1], marker="o", linewidth=1.8, label=primary),
    ]


def _ceiling(axes: Axes, value: float) -> Line2D:
    style: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": "--"}
    axes.axvline(value, **style)
    return Line2D([], [], label=measure_title(CEILING), **style)


def _static(axes: Axes, static: str, value: float | None) -> list[Line2D]:
    if value is None:
        return []
    style: dict[str, Any] = {"color": QUIET, "linewidth": 1.2, "linestyle": ":"}
    for place in (value, -value):
        axes.axvline(place, **style)
    label = f"{measure_title(static)}: best of those that look at no image"
    return [Line2D([], [], label=label, **style)]


def _score(axes: Axes, place: int, rho: Coefficient, colour: str) -> None:
    """Draw one row: the coefficient and both intervals, or why there is none."""
    for ci, width, shade in ((rho.ci, 1.8, 1.0), (rho.ci_rows, 5.0, 0.25)):
        if ci is not None:
            style: dict[str, Any] = {"linewidth": width, "alpha": shade, "solid_capstyle": "butt"}
            axes.plot(ci, [place, place], color=colour, **style)
    if rho.value is None:
        why = f"not computed: {rho.reason}"
        axes.text(-1.02, place, why, va="center", fontsize=8.5, color=QUIET)
    else:
        axes.plot([rho.value], [place], "o", color=colour, markersize=5.5)


def _lay_out(axes: Axes, titles: Sequence[str]) -> None:
    axes.set_yticks(range(len(titles)), titles, color=INK)
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Spearman's rho")


def _described(shown: Mapping[str, Coefficient], ceiling: Coefficient | None, target: str) -> str:
    named = dict(shown) if ceiling is None else {**shown, CEILING: ceiling}
    words = "; ".join(f"{measure_title(name)} {fixed(rho.value)}" for name, rho in named.items())
    return f"Correlations with {target_title(target)}. Spearman: {words}."
