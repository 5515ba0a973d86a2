"""The interactive part of the page: a scatter plot of any score and accuracy, and the table of all models.

What its controls do stands in ``templates/explorer.js``.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bokeh.embed import json_item
from bokeh.layouts import column, row
from bokeh.models import CDSView, ColumnDataSource, GroupFilter, HoverTool, IndexFilter, PlainText
from bokeh.models.widgets.buttons import Button
from bokeh.models.widgets.groups import CheckboxGroup
from bokeh.models.widgets.inputs import Select, TextInput
from bokeh.models.widgets.tables import DataTable, NumberFormatter, StringFormatter, TableColumn
from bokeh.plotting import figure
from bokeh.resources import Resources

from ..pipeline.measures.registry import COMPARISONS, MEASURES
from ..pipeline.schema import is_accuracy, target_unit
from .figures import COLOURS, one_line
from .sample import BASELINES, groups_of, names, succeeded, texts, values
from .wording import measure_title, target_title, with_unit

CONTROLS = Path(__file__).with_name("templates") / "explorer.js"
OURS = {"params_m", "embedding_dim", *(score.name for score in (*MEASURES, *COMPARISONS, *BASELINES))}
BOKEH_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "x", "hex", "star", "asterisk")
SMALLEST, LARGEST = 6.0, 18.0  # pixels
TABLE_ROWS = 14
IDS = ("id", "root_id")  # under which Bokeh's JSON names a model
_WRAP = {"flex-wrap": "wrap"}


@dataclass(frozen=True)
class Explorer:
    """The explorer's parts; the scripts hold nothing of a run.

    ``models`` are Bokeh's, for JSON; ``scripts`` are Bokeh itself, for the page needs no network, and the controls'.
    """

    models: Mapping[str, Any]
    scripts: Sequence[str]


def explorer(rows: pd.DataFrame, scores: Sequence[str], targets: Sequence[str], start: tuple[str, str]) -> Explorer:
    """The explorer of the measured rows.

    Parameters
    ----------
    rows
        One row an entry.
    scores, targets
        Columns to choose from.
    start
        The score and the target that are shown first.
    """
    ok = succeeded(rows)
    source = _source(ok, scores, targets, start)
    legend, category = _categories(ok)
    source.data["category"] = category
    plot = _plot(source, legend, start)
    score, target = (
        Select(name=title.lower(), title=title, value=_key(value), options=_options(offered, words), width=230)
        for title, value, offered, words in (
            ("Score", start[0], scores, measure_title),
            ("Accuracy", start[1], targets, _with_target_unit),
        )
    )
    text = TextInput(
        name="filter", title="Models, families or kinds that contain", placeholder="vit, convnext ...", width=230
    )
    only = CheckboxGroup(name="only", labels=["only models selected in the plot"], active=[], width=230)
    table = DataTable(
        name="models",
        source=source,
        view=CDSView(filter=IndexFilter()),
        columns=_columns(scores, targets, grouped=bool(groups_of(ok))),
        sizing_mode="stretch_width",
        height=26 * (TABLE_ROWS + 1),
        index_position=None,
        selectable="checkbox",
        sortable=True,
        reorderable=False,
        autosize_mode="none",
    )
    save = Button(name="save", label="Download as CSV", width=160)
    layout = column(
        row(score, target, sizing_mode="stretch_width", styles=_WRAP),
        plot,
        row(text, only, save, sizing_mode="stretch_width", styles=_WRAP),
        table,
        sizing_mode="stretch_width",
    )
    library = Resources(mode="inline", components=["bokeh", "bokeh-widgets", "bokeh-tables"])
    return Explorer(_renumbered(json_item(layout)), [*library.js_raw, CONTROLS.read_text(encoding="utf-8")])


def _renumbered(tree: Any) -> Any:
    """Bokeh's JSON with models numbered from 1: Bokeh counts on from page to page, and equal rows give equal bytes."""
    numbers: dict[str, str] = {}

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                name: numbers.setdefault(value, f"p{len(numbers) + 1}") if name in IDS else walk(value)
                for name, value in part.items()
            }
        return [walk(item) for item in part] if isinstance(part, list) else part

    return walk(tree)


def _key(column: str) -> str:
    """What the browser calls a column: the user's own measures may have any name, also one that is taken."""
    return column if column in OURS or target_unit(column) is not None else f"own {column}"


def _with_target_unit(target: str) -> str:
    return with_unit(target_title(target), target_unit(target) or "")


def _options(offered: Sequence[str], words: Callable[[str], str]) -> list[str | tuple[Any, str]]:
    return [(_key(name), words(name)) for name in offered]


def _source(
    rows: pd.DataFrame, scores: Sequence[str], targets: Sequence[str], start: tuple[str, str]
) -> ColumnDataSource:
    size = values(rows, "params_m")
    scaled = np.log10(np.where(np.isfinite(size) & (size > 0), size, np.nan))
    span = np.nanmax(scaled) - np.nanmin(scaled) if np.isfinite(scaled).any() else 0.0
    share = (scaled - np.nanmin(scaled)) / span if span > 0 else np.full(len(rows), 0.4)
    saturated = values(rows, "saturated") == 1
    facts = {
        "model": [entry["model"] for entry in names(rows)],
        "size": values(rows, "img_size"),
        "family": _shown(rows, "family"),
        "kind": _shown(rows, "kind"),
        "group": _shown(rows, "group"),
        "flag": np.where(saturated, "saturated", "").tolist(),
    }
    numbers = list(dict.fromkeys((*scores, *targets, "params_m", "embedding_dim")))
    drawn = {
        "pixels": np.nan_to_num(SMALLEST + (LARGEST - SMALLEST) * share, nan=SMALLEST),
        "alpha": np.where(saturated, 0.15, 0.7),
        "x": values(rows, start[0]),
        "y": values(rows, start[1]),
    }
    # The download's columns, each with its head.
    tags = [(name, name) for name in facts] + [(_key(name), name) for name in numbers]
    return ColumnDataSource({**facts, **{_key(name): values(rows, name) for name in numbers}, **drawn}, tags=tags)


def _shown(rows: pd.DataFrame, column: str) -> list[str]:
    return [text or "" for text in texts(rows, column)]


def _categories(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """What the colours tell apart: the groups where there are some, else the kinds; and each row's."""
    column = "group" if groups_of(rows) else "kind"
    found = [text or "unknown" for text in texts(rows, column)]
    distinct = groups_of(rows) if column == "group" else sorted(set(found))
    distinct += [] if "unknown" not in found or "unknown" in distinct else ["unknown"]
    if len(distinct) > len(COLOURS):
        return ["models"], ["models"] * len(rows)
    return distinct, found


def _plot(source: ColumnDataSource, legend: Sequence[str], start: tuple[str, str]) -> figure:
    plot = figure(
        name="plot",
        height=460,
        sizing_mode="stretch_width",
        tools="pan,wheel_zoom,box_zoom,box_select,lasso_select,tap,reset,save",
        active_drag="box_select",
        # Bokeh would read a bare string for mathematics.
        x_axis_label=PlainText(text=measure_title(start[0])),
        y_axis_label=PlainText(text=_with_target_unit(start[1])),
        background_fill_color=None,
        border_fill_color=None,
    )
    plot.toolbar.logo = None
    plot.xaxis.name, plot.yaxis.name = "x axis", "y axis"
    for name, colour, marker in zip(legend, COLOURS, BOKEH_MARKERS, strict=False):
        plot.scatter(
            "x", "y", source=source, view=CDSView(filter=GroupFilter(column_name="category", group=name)),
            size="pixels", fill_alpha="alpha", line_alpha=0.9, color=colour, marker=marker,
            legend_label=one_line(name, 36), nonselection_fill_alpha=0.08, nonselection_line_alpha=0.25,
        )  # fmt: skip
    plot.add_layout(plot.legend[0], "below")
    plot.legend.orientation = "horizontal"
    plot.legend.ncols = "auto"
    plot.legend.click_policy = "hide"
    plot.legend.background_fill_alpha = 0
    plot.add_tools(
        HoverTool(
            tooltips=[
                ("model", "@model"), ("size", "@size"), ("family", "@family"), ("kind", "@kind"),
                ("score", "@x{0.000}"), ("accuracy", "@y{0.00}"), ("parameters", "@params_m{0.0} M"),
                ("dimension", "@embedding_dim"), ("", "@flag"),
            ]
        )
    )  # fmt: skip
    return plot


def _columns(scores: Sequence[str], targets: Sequence[str], grouped: bool) -> list[TableColumn]:
    text, number = StringFormatter(nan_format="–"), NumberFormatter(format="0.000", nan_format="–", text_align="right")
    percent = NumberFormatter(format="0.0", nan_format="–", text_align="right")
    whole = NumberFormatter(format="0", nan_format="–", text_align="right")
    return [
        TableColumn(field="model", title="Model", formatter=text, width=260),
        TableColumn(field="size", title="Size", formatter=whole, width=50),
        TableColumn(field="family", title="Family", formatter=text, width=120),
        TableColumn(field="kind", title="Kind", formatter=text, width=100),
        *([TableColumn(field="group", title="Group", formatter=text, width=160)] if grouped else []),
        *(
            TableColumn(
                field=_key(t),
                title=_head(target_title(t)),
                formatter=percent if is_accuracy(t) else number,
                width=120,
            )
            for t in targets
        ),
        *(TableColumn(field=_key(s), title=_head(measure_title(s)), formatter=number, width=110) for s in scores),
        TableColumn(field="params_m", title="Parameters (M)", formatter=percent, width=90),
        TableColumn(field="embedding_dim", title="Dimension", formatter=whole, width=80),
        TableColumn(field="flag", title="Flag", formatter=text, width=80),
    ]


def _head(title: str) -> str:
    """The title as HTML, which the table's head is."""
    return html.escape(title)
