"""The report of a monitored training: its curves, and what measuring cost."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.measures.catalog import MEASURES
from dsmi_zoo.pipeline.monitor.file import NUMBERS, SIMPLE_SCORES, read_monitor

from ..figures.curves import Panel, curves, lines_of
from ..statistics.sample import values
from ..wording import fixed, measure_title, measure_unit, with_unit
from .parts import Illustration, Section, Table, table_of_words
from .rendering import PageFiles, prose


@dataclass(frozen=True)
class CurvePage:
    """All that the page shows; ``content`` is summary.json's."""

    eyebrow: str
    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    content: Mapping[str, Any]
    warnings: Sequence[str] = ()
    provenance: Sequence[tuple[str, str]] = ()


def write_curve_page(page: CurvePage, folder: Path) -> Path:
    """Write the page into ``folder``, each file whole or not at all; returns the path of ``index.html``, the last."""
    context = {
        "eyebrow": page.eyebrow,
        "title": page.title,
        "answer": None,
        "lead": list(page.lead),
        "warnings": list(page.warnings),
        "sections": list(page.sections),
        "provenance": list(page.provenance),
        "script_hashes": [],
        "folded": False,
    }
    figures = {
        figure.name: figure.drawing for section in page.sections for figure in section.figures
    }
    numbers = {**page.content, "lead": page.lead[0], "warnings": list(page.warnings)}
    return PageFiles("curves", context, numbers, figures).write(folder)


SHOWN = ("dse_z", "dsmi_z_y", "dsmi_z_x")
CLASSIC = ("cse_z", "csmi_z_y", "csmi_z_x")


def write_monitor_report(out: Path) -> Path:
    """Write ``OUT/report`` of a folder with ``monitor.parquet`` and return the path of its page.

    Raises
    ------
    InputError
        When the folder holds no measurements of a monitor.
    """
    rows, facts = read_monitor(out)
    return write_curve_page(_page(rows, facts, out.name), out / "report")


def _page(rows: pd.DataFrame, facts: dict[str, Any], name: str) -> CurvePage:
    steps = int(rows["step"].max())
    cost = monitor_cost(rows)
    return CurvePage(
        eyebrow=f"{name} · {counted(len(rows), 'measurement')} over {counted(steps, 'step')}",
        title="How the representation changed during training",
        lead=list(_lead(rows, cost)),
        warnings=list(_warnings(rows)),
        sections=[
            _curves_section(rows, facts),
            _simple_section(rows),
            _classic_section(rows),
            Section("numbers", "Numbers", "Every measurement.", [_numbers_table(rows)]),
        ],
        content={"measurements": len(rows), "steps": steps, "cost_percent": cost, "monitor": facts},
        provenance=[
            ("Layer", facts["layer"] or "penultimate"),
            ("Images", str(facts["n"])),
            ("Every", counted(int(facts["every"]), "step")),
            ("Hash of the images", facts["images_sha256"][:16]),
        ],
    )


def _lead(rows: pd.DataFrame, cost: float | None) -> Iterator[str]:
    yield f"{_change(rows, 'dse_z')}; {_change(rows, 'dsmi_z_y')}; {_change(rows, 'dsmi_z_x')}."
    yield f"Measuring took {fixed(cost, 1)}% of the training time."
    null = rows["dsmi_z_y_null"].dropna()
    if len(null):
        yield f"The median of DSMI(Z;Y) with permuted labels is {fixed(float(null.median()), 3)} bits."


def _warnings(rows: pd.DataFrame) -> Iterator[str]:
    saturated = int((rows["saturated"] == 1).sum())
    if saturated:
        yield f"{saturated} of {counted(len(rows), 'measurement')} saturated: sigma does not fit the scale."
    lost = int(rows["dse_z"].isna().sum())
    if lost:
        yield f"{counted(lost, 'measurement')} failed, because the embedding was not finite."


def _curves_section(rows: pd.DataFrame, facts: dict[str, Any]) -> Section:
    panels = [_panel(rows, measure) for measure in SHOWN]
    drawing = curves(panels, _described(rows))
    words = prose("monitor_curves", n=str(facts["n"]), every=str(facts["every"]))
    figure = Illustration("curves", drawing, "DSE and DSMI of the layer, in bits.")
    return Section("curves", "Curves", words, figures=[figure])


def _simple_section(rows: pd.DataFrame) -> Section:
    simple = [measure.name for measure in SIMPLE_SCORES]
    own = [column for column in rows.columns if column not in NUMBERS]
    panels = [_panel(rows, name) for name in (*simple, *own)]
    drawing = curves(panels, "Simple scores and the training's own numbers over the steps.")
    words = prose("monitor_simple")
    return Section(
        "simple", "What is simple, beside it", words, figures=[Illustration("simple", drawing)]
    )


def _classic_section(rows: pd.DataFrame) -> Section:
    panels = [_panel(rows, measure) for measure in CLASSIC]
    drawing = curves(panels, "Binned entropy and mutual information over the steps.")
    words = prose("monitor_classic")
    return Section(
        "classic", "The classic measures", words, figures=[Illustration("classic", drawing)]
    )


def _numbers_table(rows: pd.DataFrame) -> Table:
    heads = ["Step", "Training (s)", *(with_unit(measure_title(m.name), m.unit) for m in MEASURES)]
    cells = []
    for row in rows.to_dict("records"):
        measured = [fixed(row[measure.name], 3) for measure in MEASURES]
        cells.append([fixed(row["step"], 0), fixed(row["seconds_training"], 1), *measured])
    return table_of_words(None, heads, cells, text_columns=())


def monitor_cost(rows: pd.DataFrame) -> float | None:
    """Seconds of measuring in percent of those of training; None before there is any, or if one is unknown."""
    measuring, training = (
        float(values(rows, f"seconds_{what}")[-1]) for what in ("monitor", "training")
    )
    return 100 * measuring / training if training > 0 and math.isfinite(measuring) else None


def _panel(rows: pd.DataFrame, measure: str) -> Panel:
    title = measure_title(measure)
    return Panel(
        title,
        "optimizer step",
        measure_unit(measure),
        [line for line in lines_of(rows, "step", measure, None) if len(line.x)],
    )


def _change(rows: pd.DataFrame, measure: str) -> str:
    known = values(rows, measure)
    known = known[np.isfinite(known)]
    if not len(known):
        return f"{measure_title(measure)} is unknown"
    return f"{measure_title(measure)} went from {fixed(known[0])} to {fixed(known[-1])} bits"


def _described(rows: pd.DataFrame) -> str:
    return f"Curves over training steps. {'; '.join(_change(rows, measure) for measure in SHOWN)}."
