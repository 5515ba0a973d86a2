"""Pages of curves over training, and the report of a monitored training: its curves, and what measuring cost."""

import math
from collections.abc import Mapping, Sequence
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
from .rendering import AnyCell, Illustration, PageFiles, Section, Table, prose, table_of_words

SHOWN = ("dse_z", "dsmi_z_y", "dsmi_z_x")
CLASSIC = ("cse_z", "csmi_z_y", "csmi_z_x")


@dataclass(frozen=True)
class CurvePage:
    """The content of a page; ``content`` goes into summary.json."""

    eyebrow: str
    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    content: Mapping[str, Any]
    warnings: Sequence[str] = ()
    provenance: Sequence[tuple[str, str]] = ()


def write_curve_page(page: CurvePage, folder: Path) -> Path:
    """Write the page into ``folder``, each file atomically, and return the path of ``index.html``."""
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
    drawings = {
        figure.name: figure.drawing for section in page.sections for figure in section.figures
    }
    numbers = {**page.content, "lead": page.lead[0], "warnings": list(page.warnings)}
    return PageFiles("curves.html.j2", context, numbers, drawings).write(folder)


def write_monitor_report(out: Path) -> Path:
    """Write ``OUT/report`` of a folder with ``monitor.parquet`` and return the path of its page.

    Raises
    ------
    InputError
        When the folder has no measurements of a monitor.
    """
    rows, facts = read_monitor(out)
    steps = int(rows["step"].max())
    cost = monitor_cost(rows)
    page = CurvePage(
        eyebrow=f"{out.name} · {counted(len(rows), 'measurement')} over {counted(steps, 'step')}",
        title="How the representation changed during training",
        lead=_lead(rows, cost),
        warnings=_warnings(rows),
        sections=_sections(rows, facts),
        content={"measurements": len(rows), "steps": steps, "cost_percent": cost, "monitor": facts},
        provenance=[
            ("Layer", facts["layer"] or "penultimate"),
            ("Images", str(facts["n"])),
            ("Every", counted(int(facts["every"]), "step")),
            ("Hash of the images", facts["images_sha256"][:16]),
        ],
    )
    return write_curve_page(page, out / "report")


def monitor_cost(rows: pd.DataFrame) -> float | None:
    """Return the time of measuring in percent of training time; None if unknown or 0."""
    measuring = float(values(rows, "seconds_monitor")[-1])
    training = float(values(rows, "seconds_training")[-1])
    return 100 * measuring / training if training > 0 and math.isfinite(measuring) else None


def _lead(rows: pd.DataFrame, cost: float | None) -> list[str]:
    sentences = [
        f"{'; '.join(_change(rows, measure) for measure in ('dse_z', 'dsmi_z_y', 'dsmi_z_x'))}.",
        f"Measuring took {fixed(cost, 1)}% of the training time.",
    ]
    null = rows["dsmi_z_y_null"].dropna()
    if len(null):
        median = fixed(float(null.median()), 3)
        sentences.append(f"The median of DSMI(Z;Y) with permuted labels is {median} bits.")
    return sentences


def _warnings(rows: pd.DataFrame) -> list[str]:
    warnings = []
    saturated = rows.loc[rows["saturated"] == 1, "step"]
    if len(saturated):
        more = f" and {len(saturated) - 1} more" if len(saturated) > 1 else ""
        steps = f"{saturated.iloc[0]:.0f}{more}"
        warnings.append(
            f"Saturated at step {steps}: sigma does not fit the scale of the embedding."
        )
    failed = int(rows["dse_z"].isna().sum())
    if failed:
        warnings.append(
            f"{counted(failed, 'measurement')} failed: the embedding was not finite, or the forward pass failed."
        )
    return warnings


def _sections(rows: pd.DataFrame, facts: Mapping[str, Any]) -> list[Section]:
    simple = [measure.name for measure in SIMPLE_SCORES]
    own = [column for column in rows.columns if column not in NUMBERS]
    changes = "; ".join(_change(rows, measure) for measure in SHOWN)
    main = curves([_panel(rows, name) for name in SHOWN], f"Curves over training steps. {changes}.")
    baselines = curves(
        [_panel(rows, name) for name in (*simple, *own)],
        "Simple scores and the training's own numbers over the steps.",
    )
    classic = curves(
        [_panel(rows, name) for name in CLASSIC],
        "Binned entropy and mutual information over the steps.",
    )
    return [
        Section(
            "curves",
            "Curves",
            prose("monitor_curves", n=str(facts["n"]), every=str(facts["every"])),
            figures=[Illustration("curves", main, "DSE and DSMI of the layer, in bits.")],
        ),
        Section(
            "simple",
            "Baselines",
            prose("monitor_simple"),
            figures=[Illustration("simple", baselines)],
        ),
        Section(
            "classic",
            "The classic measures",
            prose("monitor_classic"),
            figures=[Illustration("classic", classic)],
        ),
        Section("numbers", "Numbers", "Every measurement.", [_numbers_table(rows)]),
    ]


def _numbers_table(rows: pd.DataFrame) -> Table:
    heads = ["Step", "Training (s)", *(with_unit(measure_title(m.name), m.unit) for m in MEASURES)]
    cells: list[list[AnyCell]] = []
    for row in rows.to_dict("records"):
        measured = [fixed(row[measure.name], 3) for measure in MEASURES]
        cells.append([fixed(row["step"], 0), fixed(row["seconds_training"], 1), *measured])
    return table_of_words(None, heads, cells, text_columns=())


def _panel(rows: pd.DataFrame, measure: str) -> Panel:
    lines = lines_of(rows, "step", measure, None)
    return Panel(measure_title(measure), "optimizer step", measure_unit(measure), lines)


def _change(rows: pd.DataFrame, measure: str) -> str:
    known = values(rows, measure)
    known = known[np.isfinite(known)]
    if not len(known):
        return f"{measure_title(measure)} is unknown"
    return f"{measure_title(measure)} went from {fixed(known[0])} to {fixed(known[-1])} bits"
