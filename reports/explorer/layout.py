"""The interactive part of the page: a plot, a table and the statistics of whatever models are chosen.

What its controls do stands in ``explorer.js``, the statistics they need in ``statistics.js``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bokeh.embed import json_item
from bokeh.layouts import column, row
from bokeh.models import (
    CDSView,
    ColumnDataSource,
    GroupFilter,
    HoverTool,
    IndexFilter,
    IntersectionFilter,
    PlainText,
    Spacer,
)
from bokeh.models.widgets.buttons import Button
from bokeh.models.widgets.groups import CheckboxGroup
from bokeh.models.widgets.inputs import NumericInput, Select, TextInput
from bokeh.models.widgets.tables import DataTable, NumberFormatter, StringFormatter, TableColumn
from bokeh.plotting import figure
from bokeh.resources import Resources

from dsmi_zoo.pipeline.store.schema import target_unit

from ..figures.scatter import COLOURS, one_line
from ..statistics.ranking import COSTS
from ..statistics.sample import groups_of, succeeded, texts
from ..wording import measure_title, with_unit
from .data import FACTS, ExplorerData, explorer_data, key_of, with_target_unit

HERE = Path(__file__).parent
SCRIPTS = ("statistics.js", "explorer.js")
BOKEH_MARKERS = (
    "circle",
    "square",
    "triangle",
    "diamond",
    "inverted_triangle",
    "plus",
    "x",
    "hex",
    "star",
    "asterisk",
)
TABLE_ROWS = 14
IDS = ("id", "root_id")  # under which Bokeh's JSON names a model
ALL = ""  # the value of a filter that lets everything pass
_WRAP = {"flex-wrap": "wrap"}


@dataclass(frozen=True)
class Axes:
    """What can be chosen for the two axes, and what is shown first; models are ranked by the ``ranked`` one.

    By default they are a study's: any score against any accuracy.
    """

    across: Sequence[str]
    up: Sequence[str]
    start: tuple[str, str]
    heads: tuple[str, str] = ("Score", "Accuracy")
    ranked: str = "x"
    is_log: bool = False


@dataclass(frozen=True)
class Explorer:
    """The explorer's parts; the scripts hold nothing of a run.

    ``models`` are Bokeh's, for JSON, ``settings`` what the controls must know of the columns; ``scripts`` are Bokeh
    itself, because the page needs no network, and ours.
    """

    models: Mapping[str, Any]
    settings: Mapping[str, Any]
    scripts: Sequence[str]


def of_choice(scores: Sequence[str], targets: Sequence[str], costs: Sequence[str]) -> Axes:
    """Any score or accuracy against any cost, the probe's accuracy and the ranking's cost first."""
    up = ["probe_accuracy", *(name for name in (*scores, *targets) if name != "probe_accuracy")]
    return Axes(costs, up, (costs[0], up[0]), ("Cost", "Score"), "y", True)


def explorer(rows: pd.DataFrame, axes: Axes) -> Explorer:
    """The explorer of the measured rows, one per entry."""
    ok = succeeded(rows)
    data = explorer_data(ok, axes.across, axes.up)
    source = ColumnDataSource({**data.columns, **_chosen(data, axes)}, tags=data.download)
    legend, source.data["category"] = _categories(ok)
    kept = IndexFilter(name="kept", indices=list(range(len(ok))))
    pickers = [
        Select(name=name, title=title, value=key_of(value), options=_options(offered), width=230)
        for name, title, value, offered in zip(
            ("across", "up"), axes.heads, axes.start, (axes.across, axes.up), strict=True
        )
    ]
    save = Button(name="save", label="Download as CSV", width=150)
    clear = Button(name="clear", label="Show all again", width=150)
    only = CheckboxGroup(
        name="only", labels=["only models selected in plot or table"], active=[], width=300
    )
    layout = column(
        row(*pickers, sizing_mode="stretch_width", styles=_WRAP),
        row(*_filters(data), sizing_mode="stretch_width", styles=_WRAP),
        _plot(source, kept, legend, axes),
        row(only, clear, save, sizing_mode="stretch_width", styles=_WRAP),
        _table(source, kept, axes, grouped=bool(groups_of(ok))),
        Spacer(height=4),
        sizing_mode="stretch_width",
    )
    library = Resources(mode="inline", components=["bokeh", "bokeh-widgets", "bokeh-tables"])
    ours = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    titles = {key_of(name): title_of(name) for name in (*axes.across, *axes.up, *COSTS)}
    settings = {
        **data.settings,
        "titles": titles,
        "ranked": axes.ranked,
        "start": [key_of(name) for name in axes.start],
    }
    return Explorer(_renumbered(json_item(layout)), settings, [*library.js_raw, *ours])


def _chosen(data: ExplorerData, axes: Axes) -> dict[str, Any]:
    """The columns that follow what is chosen; the controls fill the rest in."""
    n = len(data.columns["model"])
    across, up = (data.columns[key_of(name)] for name in axes.start)
    unknown = np.full(n, np.nan)
    return {"x": across, "y": up, "error": unknown, "rank": unknown, "ranks": [""] * n}


def _renumbered(tree: Any) -> Any:
    """Bokeh's JSON with models numbered from 1: Bokeh counts on from page to page, and equal rows give equal bytes."""
    numbers: dict[str, str] = {}

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                name: numbers.setdefault(value, f"p{len(numbers) + 1}")
                if name in IDS
                else walk(value)
                for name, value in part.items()
            }
        return [walk(item) for item in part] if isinstance(part, list) else part

    return walk(tree)


def title_of(name: str) -> str:
    """What an axis calls a column."""
    if name in COSTS:
        title, unit, _ = COSTS[name]
        return with_unit(title[:1].upper() + title[1:], unit)
    return measure_title(name) if target_unit(name) is None else with_target_unit(name)


def _options(offered: Sequence[str]) -> list[str | tuple[Any, str]]:
    return [(key_of(name), title_of(name)) for name in offered]


def _filters(data: ExplorerData) -> list[Any]:
    """A text, one choice for each fact of which there are several values, and the greatest number of parameters."""
    text = TextInput(
        name="text",
        title="Name, family or kind contains",
        placeholder="vit, convnext ...",
        width=230,
    )
    choices = [
        Select(name=name, title=FACTS[name], value=ALL, options=_with_all(values), width=150)
        for name, values in data.choices.items()
    ]
    most = NumericInput(
        name="most", title="Parameters (M), at most", value=None, mode="float", low=0, width=150
    )
    return [text, *choices, most]


def _with_all(choices: Sequence[str]) -> list[str | tuple[Any, str]]:
    return [(ALL, "all"), *((choice, choice) for choice in choices)]


def _categories(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """What the colours tell apart: the groups where there are some, else the kinds; and each row's."""
    column = "group" if groups_of(rows) else "kind"
    names = [text or "unknown" for text in texts(rows, column)]
    distinct = groups_of(rows) if column == "group" else sorted(set(names))
    distinct += [] if "unknown" not in names or "unknown" in distinct else ["unknown"]
    if len(distinct) > len(COLOURS):
        return ["models"], ["models"] * len(rows)
    return distinct, names


def _plot(source: ColumnDataSource, kept: IndexFilter, legend: Sequence[str], axes: Axes) -> figure:
    plot = figure(
        name="plot",
        height=430,
        sizing_mode="stretch_width",
        x_axis_type="log" if axes.is_log else "linear",
        tools="pan,wheel_zoom,box_zoom,box_select,lasso_select,tap,reset,save",
        active_drag="box_select",
        # Bokeh would read a bare string for mathematics.
        x_axis_label=PlainText(text=title_of(axes.start[0])),
        y_axis_label=PlainText(text=title_of(axes.start[1])),
        background_fill_color=None,
        border_fill_color=None,
    )
    plot.toolbar.logo = None
    plot.xaxis.name, plot.yaxis.name = "x axis", "y axis"
    for name, colour, marker in zip(legend, COLOURS, BOKEH_MARKERS, strict=False):
        shown = IntersectionFilter(operands=[GroupFilter(column_name="category", group=name), kept])
        plot.scatter(
            "x",
            "y",
            source=source,
            view=CDSView(filter=shown),
            size="pixels",
            fill_alpha="alpha",
            line_alpha=0.9,
            color=colour,
            marker=marker,
            legend_label=one_line(name, 36),
            nonselection_fill_alpha=0.08,
            nonselection_line_alpha=0.25,
        )
    plot.add_layout(plot.legend[0], "below")
    plot.legend.orientation = "horizontal"
    plot.legend.ncols = 2  # all that fits on a phone
    plot.legend.label_text_font_size, plot.legend.glyph_width = "11px", 14
    plot.legend.click_policy = "hide"
    plot.legend.background_fill_alpha = 0
    plot.add_tools(
        HoverTool(
            tooltips=[
                ("model", "@model"),
                ("size", "@size"),
                ("family", "@family"),
                ("kind", "@kind"),
                (axes.heads[0].lower(), "@x{0.000}"),
                (axes.heads[1].lower(), "@y{0.00}"),
                ("rank", "@rank{0}, @ranks"),
                ("parameters", "@params_m{0.0} M"),
                ("dimension", "@embedding_dim"),
                ("", "@flag"),
            ]
        )
    )
    return plot


def _table(source: ColumnDataSource, kept: IndexFilter, axes: Axes, grouped: bool) -> DataTable:
    text, number = (
        StringFormatter(nan_format="–"),
        NumberFormatter(format="0.000", nan_format="–", text_align="right"),
    )
    brief = NumberFormatter(format="0.0", nan_format="–", text_align="right")
    whole = NumberFormatter(format="0", nan_format="–", text_align="right")
    x, y = (
        TableColumn(field=name, title=head, formatter=number, width=105)
        for name, head in zip("xy", axes.heads, strict=True)
    )
    error = TableColumn(field="error", title="± se", formatter=number, width=60)
    picked = [x, error, y] if axes.ranked == "x" else [y, error, x]
    columns = [
        TableColumn(field="rank", title="Rank", formatter=whole, width=45),
        TableColumn(field="ranks", title="Could be", formatter=text, width=75, sortable=False),
        TableColumn(field="model", title="Model", formatter=text, width=220),
        TableColumn(field="size", title="Size", formatter=whole, width=40),
        *(
            [TableColumn(field="group", title="Group", formatter=text, width=125)]
            if grouped
            else []
        ),
        *picked,
        TableColumn(field="params_m", title="Parameters (M)", formatter=brief, width=100),
        TableColumn(field="family", title="Family", formatter=text, width=110),
        TableColumn(field="kind", title="Kind", formatter=text, width=95),
        TableColumn(field="flag", title="Flag", formatter=text, width=70),
    ]
    return DataTable(
        name="models",
        source=source,
        view=CDSView(filter=kept),
        columns=columns,
        sizing_mode="stretch_width",
        height=26 * (TABLE_ROWS + 1),
        index_position=None,
        selectable=True,
        sortable=True,
        reorderable=False,
        autosize_mode="none",
    )
