"""Pages of curves over training, and the report of a monitored training: its curves, and the cost of measuring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import linregress
from scipy.stats import t as student_t

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.measures.catalog import MEASURES
from dsmi_zoo.pipeline.measures.core.hits import wilson_interval
from dsmi_zoo.pipeline.monitor.cost import BUDGET, SHARE, Cost, cost_of
from dsmi_zoo.pipeline.monitor.file import (
    NUMBERS,
    PENULTIMATE,
    SIMPLE_SCORES,
    check_measurements,
    column_of,
    own_columns,
    read_monitor,
)

from ..figures.curves import Line, Panel, curves
from ..statistics.sample import off_scale, values
from ..wording import fixed, measure_title, measure_unit, signed, with_unit
from .rendering import AnyCell, Illustration, PageFiles, Section, Table, prose, table_of_words

SHOWN = ("dse_z", "dsmi_z_y", "dsmi_z_x")
MIN_TREND = 4  # measurements that a line with an interval needs
AXES = {"epoch", "epochs", "step", "steps", "global_step", "iteration", "iterations"}  # of training
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
    refresh: int | None = None  # seconds after which a browser reloads the page


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
        "refresh": page.refresh,
    }
    drawings = {
        figure.name: figure.drawing for section in page.sections for figure in section.figures
    }
    numbers = {**page.content, "lead": page.lead[0], "warnings": list(page.warnings)}
    return PageFiles("curves.html.j2", context, numbers, drawings).write(folder)


@dataclass(frozen=True)
class Training:
    """The measurements of a training, and its settings."""

    name: str
    rows: pd.DataFrame
    facts: Mapping[str, Any]

    @property
    def layers(self) -> list[str | None]:
        """The layers; the first one's columns have no prefix."""
        return list(self.facts.get("layers") or [self.facts["layer"]])

    @property
    def has_ended(self) -> bool:
        """Whether its monitor was closed; True for files of earlier versions, which do not record it."""
        return bool(self.facts.get("ended", True))


def read_trainings(folders: Sequence[Path]) -> list[Training]:
    """Read the measurements of trainings, named by their folders, with the parent folders if two names coincide."""
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = ["/".join(folder.parts[-2:]) for folder in folders]
    check_measurements(folders[1:])
    return [
        Training(name, *read_monitor(folder)) for name, folder in zip(names, folders, strict=True)
    ]


def write_monitor_report(
    out: Path, others: Sequence[Path] = (), refresh: int | None = None
) -> Path:
    """Write ``OUT/report`` of a folder with ``monitor.parquet`` and return the path of its page.

    Parameters
    ----------
    out
        The folder.
    others
        Folders of other trainings, whose curves are drawn into the same axes.
    refresh
        Seconds after which a browser reloads the page; None for a training that has ended.

    Raises
    ------
    InputError
        When a folder has no measurements of a monitor.
    """
    trainings = read_trainings([out, *others])
    rows, facts = trainings[0].rows, trainings[0].facts
    steps = int(rows["step"].max())
    cost = cost_of(rows)
    page = CurvePage(
        eyebrow=f"{out.name} · {counted(len(rows), 'measurement')} over {counted(steps, 'step')}",
        title="How the representation changed during training",
        lead=_lead(rows, cost),
        warnings=[*_warnings(rows), *_differences(trainings)],
        sections=_sections(trainings),
        content={
            "measurements": len(rows),
            "steps": steps,
            "cost_percent": cost and cost.whole,
            "cost_regular_percent": cost and cost.regular,
            "monitor": facts,
            "compared": [one.name for one in trainings[1:]],
        },
        provenance=[
            ("Layer", ", ".join(layer or PENULTIMATE for layer in trainings[0].layers)),
            ("Images", str(facts["n"])),
            ("Every", counted(int(facts["every"]), "step")),
            ("Hash of the images", facts["images_sha256"][:16]),
        ],
        refresh=refresh,
    )
    return write_curve_page(page, out / "report")


def _lead(rows: pd.DataFrame, cost: Cost | None) -> list[str]:
    sentences = [
        f"{'; '.join(_change(rows, measure) for measure in ('dse_z', 'dsmi_z_y', 'dsmi_z_x'))}.",
        trend(rows, "dsmi_z_y"),
    ]
    if cost is not None:
        sentences.append(
            f"Measurements take {fixed(cost.regular, 1)}% of the training time, by the median one (the aim is "
            f"{100 * SHARE:.0f}%), and took {fixed(cost.whole, 1)}% with the choice of their images (the aim is under "
            f"{100 * BUDGET:.0f}%); {fixed(cost.start, 1)} s passed before the training."
        )
    null = rows["dsmi_z_y_null"].dropna()
    if len(null):
        median = fixed(float(null.median()), 3)
        sentences.append(f"The median of DSMI(Z;Y) with permuted labels is {median} bits.")
    return sentences


def trend(rows: pd.DataFrame, measure: str) -> str:
    """Return a sentence on whether a measure still rises: the slope of a line through the second half of the steps."""
    title = measure_title(measure)
    known = rows[np.isfinite(values(rows, measure))]
    steps = values(known, "step")
    half = steps >= steps.max() / 2 if len(steps) else steps.astype(bool)
    x, y = steps[half], values(known, measure)[half]
    if len(x) < MIN_TREND:
        return f"Too few measurements to say whether {title} still rises."
    fit = linregress(x, y)
    span = x[-1] - x[0]
    change = float(fit.slope * span)
    margin = float(student_t.ppf(0.975, len(x) - 2) * fit.stderr * span)
    low, high = change - margin, change + margin
    verb = "still rose" if low > 0 else "fell" if high < 0 else "did not clearly change"
    return (
        f"From step {x[0]:.0f} to {x[-1]:.0f}, {title} {verb}: a line through its {len(x)} measurements changes by "
        f"{signed(change)} bits (95% interval {signed(low)} to {signed(high)})."
    )


def _differences(trainings: Sequence[Training]) -> list[str]:
    """Return warnings on trainings whose curves cannot be compared with the first one's."""
    first, warnings = trainings[0], []
    for other in trainings[1:]:
        differing = [
            words
            for key, words in (("images_sha256", "images"), ("labels_sha256", "labels"))
            if other.facts.get(key) != first.facts.get(key)
        ]
        if differing:
            listed = " and ".join(differing)
            warnings.append(
                f"{other.name} was measured on other {listed}: compare shapes of curves, not values."
            )
    numbers = [int(one.facts["n"]) for one in trainings]
    if len(set(numbers)) > 1:
        same = "the same images and " if warnings else ""
        warnings.append(
            f"DSMI depends on the number of images, which differs: {_each(trainings, 'n')}. Compare shapes of curves, "
            f"not values; for comparable values, pass {same}n={min(numbers)} to each training."
        )
    return warnings


def _each(trainings: Sequence[Training], setting: str) -> str:
    """Return a setting as text: one value if all trainings share it, else the value of each."""
    given = [str(one.facts[setting]) for one in trainings]
    if len(set(given)) == 1:
        return given[0]
    return ", ".join(f"{value} ({one.name})" for one, value in zip(trainings, given, strict=True))


def _warnings(rows: pd.DataFrame) -> list[str]:
    warnings = []
    steps = rows.loc[off_scale(rows), "step"]
    if len(steps):
        more = f" and {len(steps) - 1} more" if len(steps) > 1 else ""
        warnings.append(
            f"Sigma does not fit the scale of the embedding at step {steps.iloc[0]:.0f}{more}: DSE and DSMI say little."
        )
    failed = int(rows["dse_z"].isna().sum())
    if failed:
        warnings.append(
            f"{counted(failed, 'measurement')} failed: the embedding was not finite, or the forward pass failed."
        )
    return warnings


def _sections(trainings: Sequence[Training]) -> list[Section]:
    rows = trainings[0].rows
    simple = [measure.name for measure in SIMPLE_SCORES]
    own = _own_numbers(trainings)
    changes = "; ".join(_change(rows, measure) for measure in SHOWN)
    main = [_panel(trainings, name) for name in SHOWN]
    baselines = [_panel(trainings, name) for name in (*simple, *own)]
    classic = [_panel(trainings, name) for name in CLASSIC]
    return [
        Section(
            "curves",
            "Curves",
            prose("monitor_curves", n=_each(trainings, "n"), every=_each(trainings, "every")),
            figures=[
                _drawn(
                    "curves",
                    main,
                    f"Curves over training steps. {changes}.",
                    "DSE and DSMI, in bits; the band of DSMI(Z;Y) is its 95% interval over images.",
                )
            ],
        ),
        Section(
            "simple",
            "Baselines",
            prose("monitor_simple", own=_what_own_numbers_are(trainings) if own else ""),
            figures=[
                _drawn(
                    "simple",
                    baselines,
                    "Simple scores and the training's own numbers over the steps.",
                    "The bands of the accuracies are Wilson's 95% intervals over images.",
                )
            ],
        ),
        Section(
            "classic",
            "The classic measures",
            prose("monitor_classic"),
            figures=[
                _drawn("classic", classic, "Binned entropy and mutual information over the steps.")
            ],
        ),
        Section("numbers", "Numbers", "Every measurement.", [_numbers_table(rows)]),
    ]


def _own_numbers(trainings: Sequence[Training]) -> list[str]:
    """Return the columns of the callers' own numbers to draw, without mere counters of training (``AXES``)."""
    names = dict.fromkeys(
        name for one in trainings for name in own_columns(map(str, one.rows.columns), one.layers)
    )
    return [name for name in names if name.rsplit("/", 1)[-1].lower() not in AXES]


def _what_own_numbers_are(trainings: Sequence[Training]) -> str:
    """Return what the training's own numbers in a row are, by the kind that its monitor stored."""
    means, logged = "means since the last measurement", "the values that {} logged at that step"
    kinds = {one.facts.get("own_numbers") for one in trainings}
    if kinds == {"means"}:
        return means
    if kinds == {"logged"}:
        return logged.format("Hugging Face's Trainer")
    # Both kinds, or files of earlier versions, which do not record it.
    return f"{means}, or, with Hugging Face's Trainer, {logged.format('it')}"


def _drawn(name: str, panels: Sequence[Panel], description: str, caption: str = "") -> Illustration:
    """Draw panels side by side, and below each other for narrow windows."""
    narrow = curves(panels, description, columns=1, is_for_files=False)
    return Illustration(name, curves(panels, description), caption, narrow)


def _numbers_table(rows: pd.DataFrame) -> Table:
    heads = ["Step", "Training (s)", *(with_unit(measure_title(m.name), m.unit) for m in MEASURES)]
    cells: list[list[AnyCell]] = []
    for row in rows.to_dict("records"):
        measured = [fixed(row[measure.name], 3) for measure in MEASURES]
        cells.append([fixed(row["step"], 0), fixed(row["seconds_training"], 1), *measured])
    return table_of_words(None, heads, cells, text_columns=())


def _panel(trainings: Sequence[Training], measure: str) -> Panel:
    lines = []
    for training in trainings:
        for layer in training.layers:
            name = column_of(training.layers, layer, measure)
            if layer != training.layers[0] and measure not in NUMBERS:
                continue  # the caller's own numbers have no layer
            several = [training.name] if len(trainings) > 1 else []
            if len(training.layers) > 1:
                several.append(layer or PENULTIMATE)
            if name in training.rows:
                lines.append(_line(training.rows, name, " · ".join(several)))
    lines = [line for line in lines if len(line.x)]
    return Panel(measure_title(measure), "optimizer step", measure_unit(measure), lines)


def _line(rows: pd.DataFrame, name: str, label: str) -> Line:
    """Return a curve with its 95% interval over images, where it is known."""
    x, y, n = (values(rows, column) for column in ("step", name, "n_samples"))
    known = np.isfinite(x) & np.isfinite(y)
    x, y, n = x[known], y[known], n[known]
    layer, slash, measure = name.rpartition("/")
    if measure in {score.name for score in SIMPLE_SCORES}:
        limits = [
            wilson_interval(round(share / 100 * images), int(images))
            if images > 0
            else (share, share)
            for share, images in zip(y, n, strict=True)
        ]
        low, high = np.array(limits).reshape(-1, 2).T
        return Line(label, x, y, low, high)
    error = np.zeros(len(y))
    if f"{layer}{slash}{measure}_se" in rows:
        error = 1.96 * np.nan_to_num(values(rows, f"{layer}{slash}{measure}_se")[known])
    return Line(label, x, y, y - error, y + error)


def _change(rows: pd.DataFrame, measure: str) -> str:
    known = values(rows, measure)
    known = known[np.isfinite(known)]
    if not len(known):
        return f"{measure_title(measure)} is unknown"
    return f"{measure_title(measure)} went from {fixed(known[0])} to {fixed(known[-1])} bits"
