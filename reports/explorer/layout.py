"""The interactive part of the page: a plot, a table and the statistics of the selected models.

The behaviour of its controls is in ``explorer.js``, their statistics in ``statistics.js``.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
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
from scipy import stats

from dsmi_zoo._util.text import plural
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, MEASURES
from dsmi_zoo.pipeline.store.schema import target_unit

from ..figures.canvas import COLOURS, one_line
from ..statistics.bootstrap import LEVEL
from ..statistics.correlation import MIN_UNITS
from ..statistics.sample import (
    BASELINES,
    COSTS,
    families_of,
    groups_of,
    names,
    off_scale,
    one_row_per_weights,
    sign_of,
    succeeded,
    texts,
    values,
)
from ..wording import cost_title, measure_title, target_title, with_unit

OURS = {
    *("params_m", "gmacs", "throughput", "cpu_throughput", "embedding_dim"),
    *(score.name for score in (*MEASURES, *COMPARISONS, *BASELINES)),
}
FACTS = {
    "family": "Family",
    "kind": "Kind",
    "group": "Group",
    "size": "Image size",
    "extra": "Extra pretraining data",
    "pretraining": "Pretraining",
    "license": "License of the weights",
}
CHOICES = ("family", "kind", "group", "size", "extra")
NUMBERS = ("params_m", "gmacs", "throughput", "cpu_throughput", "embedding_dim")
MIN_MARKER, MAX_MARKER = 6.0, 18.0  # pixels
MAX_MODELS = 100_000


@dataclass(frozen=True)
class ExplorerData:
    """Columns by key, each [n]; the choices of the filters; the columns of a download; the settings of the controls."""

    columns: Mapping[str, Any]
    choices: Mapping[str, list[str]]
    download: list[tuple[str, str]]
    settings: Mapping[str, Any]


def key_of(column: str) -> str:
    """Return the browser's name of a column; own measures get a prefix, because their names may be taken."""
    return column if column in OURS or target_unit(column) is not None else f"own {column}"


def with_target_unit(target: str) -> str:
    """Return an accuracy's title with its unit."""
    return with_unit(target_title(target), target_unit(target) or "")


def explorer_data(rows: pd.DataFrame, across: Sequence[str], up: Sequence[str]) -> ExplorerData:
    """Return the columns of the measured rows for an explorer with these axes."""
    facts = _facts(rows)
    numbers = []
    scores: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    for name in dict.fromkeys((*across, *up, *NUMBERS)):
        score, error = values(rows, name), values(rows, f"{name}_se")
        if np.isfinite(score).any():
            numbers.append(name)
            scores[key_of(name)] = score
            if np.isfinite(error).any():
                errors[f"{key_of(name)} se"] = error.astype(np.float32)
    first = rows.index.isin(one_row_per_weights(rows).index)
    unit = pd.factorize(families_of(rows)[1])[0]
    columns = {
        **facts,
        **scores,
        **errors,
        "code": [text or "" for text in texts(rows, "loading_code")],
        "unit": unit.astype(np.int32),
        "first": first.astype(np.int32),
        **_drawn(rows),
    }
    hidden = {name for name in ("pretraining", "license") if not any(facts[name])}
    download = [(name, name) for name in facts if name not in hidden] + [
        (key_of(name), name) for name in numbers
    ]
    settings = {
        "falling": [key_of(name) for name in numbers if sign_of(name) < 0],
        "facts": {name: head for name, head in FACTS.items() if any(facts[name])},
        "unit": plural(families_of(rows)[0]),
        "leastUnits": MIN_UNITS,
        "student": _student_table(),
        "normal": _normal_table(),
    }
    return ExplorerData(columns, _choices(rows, facts), download, settings)


def _facts(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the facts of each model: texts, and the image's size in pixels."""
    extra = {1.0: "yes", 0.0: "no"}

    def known_texts(name: str) -> list[str]:
        return [text or "" for text in texts(rows, name)]

    return {
        "model": [entry["model"] for entry in names(rows)],
        "size": values(rows, "img_size"),
        "family": known_texts("family"),
        "kind": known_texts("kind"),
        "group": known_texts("group"),
        "extra": [extra.get(value, "") for value in values(rows, "extra_data").tolist()],
        "pretraining": known_texts("pretraining"),
        "license": known_texts("license"),
        "flag": np.where(off_scale(rows), "off scale", "").tolist(),
    }


def _choices(rows: pd.DataFrame, facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the filter choices: the values of each fact that has several."""
    sizes = facts["size"]
    choices = {name: sorted(set(facts[name]) - {""}) for name in ("family", "kind", "extra")}
    choices["group"] = groups_of(rows)
    choices["size"] = [f"{size:.0f}" for size in np.unique(sizes[np.isfinite(sizes)])]
    return {name: choices[name] for name in CHOICES if len(choices[name]) > 1}


def _drawn(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the size of each point, by parameters, and its opacity: pale if off scale."""
    size = values(rows, "params_m")
    scaled = np.log10(np.where(np.isfinite(size) & (size > 0), size, np.nan))
    span = np.nanmax(scaled) - np.nanmin(scaled) if np.isfinite(scaled).any() else 0.0
    share = (scaled - np.nanmin(scaled)) / span if span > 0 else np.full(len(rows), 0.4)
    pixels = np.nan_to_num(MIN_MARKER + (MAX_MARKER - MIN_MARKER) * share, nan=MIN_MARKER)
    alpha = np.where(off_scale(rows), 0.15, 0.7)
    return {"pixels": pixels.astype(np.float32), "alpha": alpha.astype(np.float32)}


def _student_table() -> list[list[float]]:
    """Return Student's t quantile of a 95% interval, by 1 over the degrees of freedom, for interpolation."""
    inverse = np.linspace(0, 1, 101)
    degrees = 1 / np.maximum(inverse, 1e-9)
    quantiles = stats.t.ppf(0.5 + LEVEL / 2, degrees)
    return [inverse.round(4).tolist(), quantiles.round(4).tolist()]


def _normal_table() -> list[list[float]]:
    """Return the normal quantile of k simultaneous comparisons at 0.95, by the logarithm of k, for interpolation."""
    count = np.geomspace(1, MAX_MODELS, 60)
    tail = (1 - LEVEL) / 2 / count
    quantiles = stats.norm.isf(tail)
    return [np.log(count).round(4).tolist(), quantiles.round(4).tolist()]


HERE = Path(__file__).parent
SCRIPTS = ("statistics.js", "explorer.js")
_MARKERS = "circle square triangle diamond inverted_triangle plus x hex star asterisk"
BOKEH_MARKERS = tuple(_MARKERS.split())
TABLE_ROWS = 14
SCROLLBAR = 18  # pixels
IDS = ("id", "root_id")  # the keys of a model's name in Bokeh's JSON
ALL = ""  # the value of a filter that is off
ROW: dict[str, Any] = {"sizing_mode": "stretch_width", "styles": {"flex-wrap": "wrap"}}


@dataclass(frozen=True)
class Axes:
    """The choices for the two axes, and the initial ones; models are ranked by the axis ``ranked``.

    The defaults are those of a study: any score against any accuracy.
    """

    across: Sequence[str]
    up: Sequence[str]
    start: tuple[str, str]
    heads: tuple[str, str] = ("Score", "Accuracy")
    ranked: str = "x"
    is_log: bool = False


@dataclass(frozen=True)
class Explorer:
    """The parts of the explorer.

    ``models`` is Bokeh's JSON, packed; ``settings`` describes the columns to the controls. ``library`` is Bokeh itself,
    so that the page needs no network, and ``packed`` its packed form in the page; ``scripts`` are ours. The library and
    the scripts hold no data of a run.
    """

    models: str
    settings: Mapping[str, Any]
    library: str
    packed: str
    scripts: Sequence[str]


def packed(text: str) -> str:
    """Return the text compressed, in base64: a third of the bytes. ``explorer.js`` unpacks it."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


@cache
def library() -> tuple[str, str]:
    """Return Bokeh's scripts joined into one, plain and packed."""
    parts = Resources(mode="inline", components=["bokeh", "bokeh-widgets", "bokeh-tables"]).js_raw
    script = "\n".join(parts)
    return script, packed(script)


def choice_axes(scores: Sequence[str], targets: Sequence[str], costs: Sequence[str]) -> Axes:
    """Return axes of any score or accuracy against any cost, beginning with the probe's accuracy and the first cost."""
    up = ["probe_accuracy", *(name for name in (*scores, *targets) if name != "probe_accuracy")]
    return Axes(costs, up, (costs[0], up[0]), ("Cost", "Score"), "y", True)


Interval = tuple[float, float]


def explorer(
    rows: pd.DataFrame, axes: Axes, intervals: Mapping[tuple[str, str], Interval] | None = None
) -> Explorer:
    """Return the explorer of the measured rows, one per entry.

    ``intervals`` are the page's intervals of rho for (across, up) over all models. They are shown instead of the
    browser's estimate, which differs in the second decimal.
    """
    ok = succeeded(rows)
    data = explorer_data(ok, axes.across, axes.up)
    source = ColumnDataSource({**data.columns, **_chosen(data, axes)}, tags=data.download)
    legend, source.data["category"] = _categories(ok)
    kept = IndexFilter(name="kept", indices=list(range(len(ok))))
    across = _picker("across", axes.heads[0], axes.start[0], axes.across)
    up = _picker("up", axes.heads[1], axes.start[1], axes.up)
    save = Button(name="save", label="Download as CSV", width=150)
    clear = Button(name="clear", label="Show all again", width=150)
    labels = ["only models selected in plot or table"]
    only = CheckboxGroup(name="only", labels=labels, active=[], width=300)
    layout = column(
        row(across, up, **ROW),
        row(*_filters(data), **ROW),
        _plot(source, kept, legend, axes),
        row(only, clear, save, **ROW),
        _table(source, kept, axes, grouped=bool(groups_of(ok))),
        Spacer(height=4),
        sizing_mode="stretch_width",
    )
    ours = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    titles = {key_of(name): title_of(name) for name in (*axes.across, *axes.up, *COSTS)}
    start = [key_of(name) for name in axes.start]
    reported: dict[str, dict[str, Interval]] = {}
    for (x, y), ci in (intervals or {}).items():
        reported.setdefault(key_of(x), {})[key_of(y)] = ci
    settings = {
        **data.settings,
        "titles": titles,
        "ranked": axes.ranked,
        "start": start,
        "intervals": reported,
    }
    models = json.dumps(_renumbered(json_item(layout)), separators=(",", ":"), allow_nan=False)
    return Explorer(packed(models), settings, *library(), ours)


def _picker(name: str, title: str, value: str, offered: Sequence[str]) -> Select:
    options: list[Any] = [(key_of(column), title_of(column)) for column in offered]
    return Select(name=name, title=title, value=key_of(value), options=options, width=230)


def _chosen(data: ExplorerData, axes: Axes) -> dict[str, Any]:
    """Return the columns that depend on the axes; the controls fill in the rest."""
    n = len(data.columns["model"])
    across, up = (data.columns[key_of(name)] for name in axes.start)
    unknown = np.full(n, np.nan)
    return {"x": across, "y": up, "error": unknown, "rank": unknown, "ranks": [""] * n}


def _renumbered(tree: Any) -> Any:
    """Return Bokeh's JSON with models numbered from 1 on every page, so that equal rows give equal bytes."""
    numbers: dict[str, str] = {}

    def walk(part: Any) -> Any:
        if isinstance(part, list):
            return [walk(item) for item in part]
        if not isinstance(part, dict):
            return part
        renumbered = {}
        for name, value in part.items():
            is_id = name in IDS
            renumbered[name] = (
                numbers.setdefault(value, f"p{len(numbers) + 1}") if is_id else walk(value)
            )
        return renumbered

    return walk(tree)


def title_of(name: str) -> str:
    """Return the title of a column on an axis."""
    if name in COSTS:
        return cost_title(name)
    return measure_title(name) if target_unit(name) is None else with_target_unit(name)


def _filters(data: ExplorerData) -> list[Any]:
    """Return filters by text, by each fact with several values, and by the number of parameters."""
    title = "Name, family or kind contains"
    filters: list[Any] = [
        TextInput(name="text", title=title, placeholder="vit, convnext ...", width=230)
    ]
    for name, choices in data.choices.items():
        options: list[Any] = [(ALL, "all"), *((value, value) for value in choices)]
        filters.append(Select(name=name, title=FACTS[name], value=ALL, options=options, width=150))
    title = "Parameters (M), at most"
    most = NumericInput(name="most", title=title, value=None, mode="float", low=0, width=150)
    return [*filters, most]


def _categories(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the colour categories and each row's: group if present, else kind."""
    groups = groups_of(rows)
    names = [text or "unknown" for text in texts(rows, "group" if groups else "kind")]
    distinct = groups or sorted(set(names))
    if "unknown" in names and "unknown" not in distinct:
        distinct.append("unknown")
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
        # Bokeh would interpret a bare string as mathematics.
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
    tooltips = {
        "model": "@model",
        "size": "@size",
        "family": "@family",
        "kind": "@kind",
        axes.heads[0].lower(): "@x{0.000}",
        axes.heads[1].lower(): "@y{0.00}",
        "rank": "@rank{0}, @ranks",
        "parameters": "@params_m{0.0} M",
        "dimension": "@embedding_dim",
        "": "@flag",
    }
    plot.add_tools(HoverTool(tooltips=list(tooltips.items())))
    return plot


def _table(source: ColumnDataSource, kept: IndexFilter, axes: Axes, grouped: bool) -> DataTable:
    text = StringFormatter(nan_format="–")
    whole, brief, number = (
        NumberFormatter(format=digits, nan_format="–", text_align="right")
        for digits in ("0", "0.0", "0.000")
    )
    x = TableColumn(field="x", title=axes.heads[0], formatter=number, width=105)
    y = TableColumn(field="y", title=axes.heads[1], formatter=number, width=105)
    error = TableColumn(field="error", title="± se", formatter=number, width=60)
    group = TableColumn(field="group", title="Group", formatter=text, width=125)
    columns = [
        TableColumn(field="rank", title="Rank", formatter=whole, width=45),
        TableColumn(field="ranks", title="Could be", formatter=text, width=75, sortable=False),
        TableColumn(field="model", title="Model", formatter=text, width=220),
        TableColumn(field="size", title="Size", formatter=whole, width=40),
        *([group] if grouped else []),
        *([x, error, y] if axes.ranked == "x" else [y, error, x]),
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
        height=26 * (min(TABLE_ROWS, len(source.data["model"])) + 1) + SCROLLBAR,
        index_position=None,
        selectable=True,
        sortable=True,
        reorderable=False,
        autosize_mode="none",
    )
