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
    """Draw vertical lines, and return their handle for the legend; none if their place is undefined."""
    known = [place for place in places if place is not None]
    for place in known:
        axes.axvline(place, **style)
    return [Line2D([], [], label=label, **style)] if known else []


def _draw_row(axes: Axes, row: int, rho: Coefficient, colour: str) -> None:
    """Draw one row: the coefficient and both intervals, or why there is none."""
    for ci, width, shade in ((rho.ci, 1.8, 1.0), (rho.ci_rows, 5.0, 0.25)):
        if ci is not None:
            style: dict[str, Any] = {"linewidth": width, "alpha": shade, "solid_capstyle": "butt"}
            axes.plot(ci, [row, row], color=colour, **style)
    if rho.value is None:
        why = f"not computed: {rho.reason}"
        axes.text(-1.02, row, why, va="center", fontsize=8.5, color=QUIET)
    else:
        axes.plot([rho.value], [row], "o", color=colour, markersize=5.5)
