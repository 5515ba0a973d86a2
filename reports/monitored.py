"""The report of a monitored training: its curves, and what measuring cost."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..pipeline.measures.registry import MEASURES
from ..pipeline.monitor_file import NUMBERS, SIMPLE_SCORES, read_monitor
from .curve_page import CurvePage, Section, table, write_curve_page
from .curves import Panel, curves, lines_of
from .sample import values
from .wording import counted, fixed, measure_title, measure_unit, with_unit

SHOWN = ("dse_z", "dsmi_z_y", "dsmi_z_x")


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
    panels = [_panel(rows, measure) for measure in SHOWN]
    simple = [_panel(rows, measure.name) for measure in SIMPLE_SCORES]
    own = [_panel(rows, name) for name in rows.columns if name not in NUMBERS]
    classic = [_panel(rows, measure) for measure in ("cse_z", "csmi_z_y", "csmi_z_x")]
    null = rows["dsmi_z_y_null"].dropna()
    saturated = int((rows["saturated"] == 1).sum())
    warnings = []
    if saturated:
        warnings.append(f"{saturated} of {counted(len(rows), 'measurement')} saturated: sigma does not fit the scale.")
    lost = int(rows["dse_z"].isna().sum())
    if lost:
        warnings.append(f"{counted(lost, 'measurement')} failed, for the embedding was not finite.")
    heads = ["Step", "Training (s)", *(with_unit(measure_title(m.name), m.unit) for m in MEASURES)]
    numbers = [
        [fixed(row["step"], 0), fixed(row["seconds_training"], 1), *(fixed(row[m.name], 3) for m in MEASURES)]
        for row in rows.to_dict("records")
    ]
    return CurvePage(
        eyebrow=f"{name} · {counted(len(rows), 'measurement')} over {counted(steps, 'step')}",
        title="How the representation changed during training",
        lead=[
            f"{_change(rows, 'dse_z')}; {_change(rows, 'dsmi_z_y')}; {_change(rows, 'dsmi_z_x')}.",
            f"Measuring took {fixed(cost, 1)}% of the training time.",
            f"The median of DSMI(Z;Y) with permuted labels is {fixed(float(null.median()), 3)} bits."
            if len(null)
            else "",
        ],
        warnings=warnings,
        sections=[
            Section(
                "curves",
                "Curves",
                f"{facts['n']} held-out images, every {facts['every']} steps; step 0 is before training.",
                [("curves", curves(panels, _described(rows)), "DSE and DSMI of the layer, in bits.")],
            ),
            Section(
                "simple",
                "What is simple, beside it",
                "Accuracy of the nearest class centre and of a vote of the 10 nearest images, on the same embeddings, "
                "each image left out in turn; then the numbers that the training gave, as means since the last one.",
                [
                    (
                        "simple",
                        curves([*simple, *own], "Simple scores and the training's own numbers over the steps."),
                        "",
                    )
                ],
            ),
            Section(
                "classic",
                "The classic measures",
                "Binned entropy and mutual information of the same embeddings: with many dimensions each image is "
                "alone in its bin, and they say nothing.",
                [("classic", curves(classic, "Binned entropy and mutual information over the steps."), "")],
            ),
            Section("numbers", "Numbers", "Every measurement.", tables=[table(None, heads, numbers, text=())]),
        ],
        content={"measurements": len(rows), "steps": steps, "cost_percent": cost, "monitor": facts},
        provenance=[
            ("Layer", facts["layer"] or "penultimate"),
            ("Images", str(facts["n"])),
            ("Every", counted(int(facts["every"]), "step")),
            ("Hash of the images", facts["images_sha256"][:16]),
        ],
    )


def monitor_cost(rows: pd.DataFrame) -> float | None:
    """Seconds of measuring in percent of those of training; None before there is any, or if one is unknown."""
    measuring, training = (float(values(rows, f"seconds_{what}")[-1]) for what in ("monitor", "training"))
    return 100 * measuring / training if training > 0 and math.isfinite(measuring) else None


def _panel(rows: pd.DataFrame, measure: str) -> Panel:
    title = measure_title(measure)
    return Panel(
        title,
        "optimiser step",
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
