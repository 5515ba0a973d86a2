"""All scores at a glance: the correlation of each with accuracy, and its intervals."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.lines import Line2D

from .correlation import Correlation
from .figures import COLOURS, INK, QUIET, STYLE, Rendered, canvas, head, legend, one_line, render
from .sample import CEILING, PRIMARY_MEASURE
from .wording import fixed, measure_title, target_title


def forest(
    correlations: Mapping[str, Mapping[str, Correlation]],
    target: str,
    order: Sequence[str],
    static: str | None = None,
    units: str = "families",
) -> Rendered:
    """Spearman's coefficient of every score in ``order`` with one target: intervals over ``units`` and over rows.

    The ceiling is a line, not a row; of ``static``, the best ranker that looks at no image, there are lines too, at its
    coefficient and at minus it.
    """
    shown = [(m, correlations[m][target].spearman) for m in order if m != CEILING]
    ceiling = correlations[CEILING][target].spearman.value if CEILING in order else None
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 1.6 + 0.34 * max(len(shown), 1))
        axes.axvline(0, color=QUIET, linewidth=1)
        lines = []
        if ceiling is not None:
            axes.axvline(ceiling, color=INK, linewidth=1.2, linestyle="--")
            lines = [
                Line2D(
                    [], [], color=INK, linewidth=1.2, linestyle="--", label=measure_title(CEILING)
                )
            ]
        best_static = correlations[static][target].spearman.value if static is not None else None
        if static is not None and best_static is not None:
            for place in (best_static, -best_static):
                axes.axvline(place, color=QUIET, linewidth=1.2, linestyle=":")
            label = f"{measure_title(static)}: best of those that look at no image"
            lines.append(Line2D([], [], color=QUIET, linewidth=1.2, linestyle=":", label=label))
        for i, (m, rho) in enumerate(shown):
            colour = COLOURS[1] if m == PRIMARY_MEASURE else COLOURS[0]
            for ci, width, shade in ((rho.ci, 1.8, 1.0), (rho.ci_rows, 5.0, 0.25)):
                if ci is not None:
                    axes.plot(
                        ci,
                        [i, i],
                        color=colour,
                        linewidth=width,
                        alpha=shade,
                        solid_capstyle="butt",
                    )
            if rho.value is None:
                axes.text(
                    -1.02, i, f"not computed: {rho.reason}", va="center", fontsize=8.5, color=QUIET
                )
            else:
                axes.plot([rho.value], [i], "o", color=colour, markersize=5.5)
        axes.set_yticks(
            range(len(shown)), [one_line(measure_title(m), 30) for m, _ in shown], color=INK
        )
        axes.set_xlim(-1.05, 1.05)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Spearman's rho")
        head(axes, one_line(f"Every score and {target_title(target)}", 62), "")
        legend(
            figure,
            [
                Line2D([], [], color=COLOURS[0], linewidth=1.8, label=f"95% interval over {units}"),
                Line2D(
                    [],
                    [],
                    color=COLOURS[0],
                    linewidth=5,
                    alpha=0.25,
                    label="over rows, as if independent",
                ),
                Line2D(
                    [],
                    [],
                    color=COLOURS[1],
                    marker="o",
                    linewidth=1.8,
                    label=measure_title(PRIMARY_MEASURE),
                ),
                *lines,
            ],
        )
        named = [
            *shown,
            *([(CEILING, correlations[CEILING][target].spearman)] if ceiling is not None else []),
        ]
        words = "; ".join(f"{measure_title(m)} {fixed(rho.value)}" for m, rho in named)
        return render(figure, f"Correlations with {target_title(target)}. Spearman: {words}.")
