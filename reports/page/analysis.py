"""The sections of the report between the correlations and the regression: one question each."""

from dsmi_zoo._util.text import plural

from .. import wording
from ..figures import scatter as figures
from ..statistics.comparison import Comparison
from ..statistics.summary import Summary
from . import tables
from .parts import Illustration, Section
from .rendering import prose


def sections(summary: Summary) -> list[Section]:
    """Prediction and choice, the primary score's rivals, what else it may be, and whether it holds."""
    if summary.primary is None:
        return []
    measure, target = (
        wording.measure_title(summary.primary[0]),
        wording.target_title(summary.primary[1]),
    )
    unit, units = summary.unit, plural(summary.unit)
    return [
        Section(
            "choice",
            "Prediction and choice",
            prose("choice", target=target, unit=unit, units=units),
            [tables.prediction_table(summary), *tables.band_tables(summary)],
        ),
        Section(
            "comparison",
            f"Against {measure}",
            prose("comparison", measure=measure, target=target, units=units),
            [tables.difference_table(summary.differences)],
        ),
        Section(
            "controls",
            "What else it may be",
            prose("controls"),
            [
                tables.partial_table(summary),
                tables.multiple_table(summary.multiple, unit),
                tables.mixed_table(summary),
            ],
        ),
        Section(
            "robustness",
            "Robustness",
            prose("robustness", measure=measure, target=target),
            [
                tables.robustness_table(summary),
                *tables.class_subsets_tables(summary),
                *tables.published_tables(summary),
                *tables.influence_tables(summary),
            ],
        ),
    ]


def compared_section(comparison: Comparison) -> Section:
    """What the page says of a second run."""
    drawing = figures.compared(*comparison.primary, "dsmi_z_y", ("this run", comparison.name))
    return Section(
        "compared",
        f"Compared with {comparison.name}",
        prose(
            "compared",
            changed="; ".join(comparison.settings) or "none of those that run.json holds",
            only_here=str(comparison.only_here),
            only_there=str(comparison.only_there),
        ),
        [tables.compared_table(comparison)],
        [Illustration("compared", drawing, prose("compared_figure"))],
    )
