"""The interactive part of the page: a scatter plot of any score and accuracy, and the table of all models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from bokeh.embed import components
from bokeh.layouts import column, row
from bokeh.models import CDSView, ColumnDataSource, CustomJS, CustomJSFilter, GroupFilter, HoverTool
from bokeh.models.widgets.buttons import Button
from bokeh.models.widgets.groups import CheckboxGroup
from bokeh.models.widgets.inputs import Select, TextInput
from bokeh.models.widgets.tables import DataTable, NumberFormatter, StringFormatter, TableColumn
from bokeh.plotting import figure
from bokeh.resources import Resources

from .figures import COLOURS
from .sample import groups_of, names, succeeded, texts, values
from .wording import measure_title, target_title

BOKEH_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "x", "hex", "star", "asterisk")
SMALLEST, LARGEST = 6.0, 18.0  # pixels
TABLE_ROWS = 14
_WRAP = {"flex-wrap": "wrap"}


@dataclass(frozen=True)
class Explorer:
    """HTML of the explorer; ``library`` is Bokeh itself, so that the page needs no network."""

    library: str
    script: str
    div: str


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
        Select(name=title.lower(), title=title, value=value, options=_options(offered, words), width=230)
        for title, value, offered, words in (
            ("Score", start[0], scores, measure_title),
            ("Accuracy", start[1], targets, target_title),
        )
    )
    for select, axis, name in ((score, plot.xaxis[0], "x"), (target, plot.yaxis[0], "y")):
        select.js_on_change("value", CustomJS(args={"source": source, "axis": axis, "name": name}, code=_CHOOSE))
    text = TextInput(
        name="filter", title="Models, families or kinds that contain", placeholder="vit, convnext ...", width=230
    )
    only = CheckboxGroup(labels=["only models selected in the plot"], active=[], width=230)
    chosen = CustomJSFilter(args={"text": text, "only": only}, code=_FILTER)
    table = DataTable(
        name="models",
        source=source,
        view=CDSView(filter=chosen),
        columns=_columns(scores, targets, grouped=bool(groups_of(ok))),
        sizing_mode="stretch_width",
        height=26 * (TABLE_ROWS + 1),
        index_position=None,
        selectable="checkbox",
        sortable=True,
        reorderable=False,
        autosize_mode="none",
    )
    refresh = CustomJS(args={"source": source}, code="source.change.emit()")
    text.js_on_change("value_input", refresh)
    only.js_on_change("active", refresh)
    source.selected.js_on_change("indices", CustomJS(args={"only": only, "source": source}, code=_RESELECT))
    save = Button(label="Download as CSV", width=160)
    save.js_on_click(CustomJS(args={"source": source}, code=_DOWNLOAD))
    layout = column(
        row(score, target, sizing_mode="stretch_width", styles=_WRAP),
        plot,
        row(text, only, save, sizing_mode="stretch_width", styles=_WRAP),
        table,
        sizing_mode="stretch_width",
    )
    script, div = components(layout)
    library = Resources(mode="inline", components=["bokeh", "bokeh-widgets", "bokeh-tables"])
    return Explorer(library.render_js(), script, div)


def _options(offered: Sequence[str], words: Callable[[str], str]) -> list[str | tuple[Any, str]]:
    return [(name, words(name)) for name in offered]


def _source(
    rows: pd.DataFrame, scores: Sequence[str], targets: Sequence[str], start: tuple[str, str]
) -> ColumnDataSource:
    known = {name: values(rows, name) for name in dict.fromkeys((*scores, *targets, "params_m", "embedding_dim"))}
    size = values(rows, "params_m")
    scaled = np.log10(np.where(np.isfinite(size) & (size > 0), size, np.nan))
    span = np.nanmax(scaled) - np.nanmin(scaled) if np.isfinite(scaled).any() else 0.0
    share = (scaled - np.nanmin(scaled)) / span if span > 0 else np.full(len(rows), 0.4)
    saturated = values(rows, "saturated") == 1
    return ColumnDataSource(
        {
            "model": [entry["model"] for entry in names(rows)],
            "size": values(rows, "img_size"),
            "family": _shown(rows, "family"),
            "kind": _shown(rows, "kind"),
            "group": _shown(rows, "group"),
            "flag": np.where(saturated, "saturated", "").tolist(),
            "pixels": np.nan_to_num(SMALLEST + (LARGEST - SMALLEST) * share, nan=SMALLEST),
            "alpha": np.where(saturated, 0.15, 0.7),
            **known,
            "x": known[start[0]],
            "y": known[start[1]],
        }
    )


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
        x_axis_label=measure_title(start[0]),
        y_axis_label=f"{target_title(start[1])} (%)",
        background_fill_color=None,
        border_fill_color=None,
    )
    plot.toolbar.logo = None
    for name, colour, marker in zip(legend, COLOURS, BOKEH_MARKERS, strict=False):
        plot.scatter(
            "x", "y", source=source, view=CDSView(filter=GroupFilter(column_name="category", group=name)),
            size="pixels", fill_alpha="alpha", line_alpha=0.9, color=colour, marker=marker, legend_label=name,
            nonselection_fill_alpha=0.08, nonselection_line_alpha=0.25,
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
                ("score", "@x{0.000}"), ("accuracy", "@y{0.00} %"), ("parameters", "@params_m{0.0} M"),
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
        *(TableColumn(field=t, title=target_title(t), formatter=percent, width=120) for t in targets),
        *(TableColumn(field=s, title=measure_title(s), formatter=number, width=110) for s in scores),
        TableColumn(field="params_m", title="Parameters (M)", formatter=percent, width=90),
        TableColumn(field="embedding_dim", title="Dimension", formatter=whole, width=80),
        TableColumn(field="flag", title="Flag", formatter=text, width=80),
    ]


_CHOOSE = """
const data = source.data;
data[name] = data[cb_obj.value].slice();
const option = cb_obj.options.find(([value, _]) => value === cb_obj.value);
axis.axis_label = name === "y" ? option[1] + " (%)" : option[1];
source.change.emit();
"""

_FILTER = """
const words = text.value_input.toLowerCase().split(/[\\s,]+/).filter((word) => word.length > 0);
const selected = new Set(source.selected.indices);
const data = source.data;
const kept = [];
for (let i = 0; i < data.model.length; i++) {
  const about = [data.model[i], data.family[i], data.kind[i], data.group[i]].join(" ").toLowerCase();
  const named = words.length === 0 || words.some((word) => about.includes(word));
  if (named && (only.active.length === 0 || selected.has(i))) kept.push(i);
}
return kept;
"""

_RESELECT = """
if (only.active.length > 0) source.change.emit();
"""

_DOWNLOAD = """
const names = Object.keys(source.data).filter((name) => !["x", "y", "pixels", "alpha", "category"].includes(name));
const cell = (value) => {
  const text = value === null || Number.isNaN(value) ? "" : String(value);
  return /[",\\r\\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
};
const count = source.data.model.length;
const lines = [names.map(cell).join(",")];
for (let i = 0; i < count; i++) lines.push(names.map((name) => cell(source.data[name][i])).join(","));
const link = document.createElement("a");
link.href = URL.createObjectURL(new Blob([lines.join("\\n") + "\\n"], {type: "text/csv"}));
link.download = "models.csv";
link.click();
setTimeout(() => URL.revokeObjectURL(link.href), 1000);
"""
