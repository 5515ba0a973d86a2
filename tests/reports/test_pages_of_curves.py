"""Hostile names in pages of curves: they are shown as they are, and none runs."""

import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import chromium, needs_browser, open_page
from hostile_names import NAMES
from selenium import webdriver
from test_pages import (
    another,
    as_parsed,
    cells,
    check_figures,
    check_that_nothing_struck,
    check_that_the_policy_holds,
)

from dsmi_zoo.pipeline.monitor.file import NUMBERS, write_monitor
from dsmi_zoo.reports.figures.curves import Line, Panel, curves
from dsmi_zoo.reports.page.rendering import Illustration, Section, figure_name, table_of_words
from dsmi_zoo.reports.page.training import CurvePage, write_curve_page, write_monitor_report
from dsmi_zoo.reports.statistics import summary as statistics
from dsmi_zoo.reports.statistics.correlation import Bootstraps
from dsmi_zoo.reports.studies.trainings_page import REGIMES
from dsmi_zoo.reports.studies.validation import write_validation_report

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """Draw few resamples: these tests do not check intervals, which take the most time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "Bootstraps", partial(Bootstraps, 100, 10))
        yield


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[webdriver.Chrome]:
    with chromium(downloads) as started:
        yield started


def curve(label: str) -> Line:
    numbers = np.arange(3.0)
    return Line(label, numbers, numbers, numbers, numbers)


def monitored(folder: Path) -> Path:
    """Return the report of a training whose folder and layer have hostile names."""
    out = folder / os.fsdecode(b"<img src=x onerror=window.struck=1> '\" $x$ \xff")
    rows = [
        {name: float(step + 1) for name in NUMBERS} | {"step": float(step)} for step in range(3)
    ]
    write_monitor(out, rows, {"n": 5, "every": 1, "layer": NAMES[0], "images_sha256": NAMES[1]})
    return write_monitor_report(out)


def validated(folder: Path) -> Path:
    """Return the report of a validation whose studies, data sets, versions and commit have hostile names."""
    noise = np.random.default_rng(0)
    measures = (
        "dse_z",
        "dsmi_z_y",
        "dsmi_z_y_null",
        "dsmi_z_x",
        "probe_accuracy",
        "top1",
        "train_accuracy",
    )
    rows = pd.DataFrame(
        [
            {"group": regime, "epoch": epoch, "training_seed": seed, **{name: noise.normal() for name in measures}}
            for regime in REGIMES for epoch in range(3) for seed in range(3)
        ]
    )  # fmt: skip
    studies = {name: {"small": True, "seconds": 1.0} for name in NAMES}
    record = {
        "versions": {name: another(i, 1) for i, name in enumerate(NAMES)},
        "git_commit": NAMES[0],
    }
    results = {"dynamics": {f"../../{NAMES[1]}": rows}}
    return write_validation_report(folder, studies, results, record)[0]


def all_hostile(folder: Path) -> Path:
    """Return a page of curves whose every text is hostile."""
    drawn = curves(
        [Panel(NAMES[0], NAMES[1], NAMES[2], [curve(name) for name in NAMES[:9]])], NAMES[3]
    )
    rows = [[name, (name, name), name] for name in NAMES]
    words = table_of_words(NAMES[4], NAMES[:3], rows, text_columns=(0, 1, 2), wordy=True)
    sections = [
        Section(
            f"s{i}",
            name,
            name,
            [words] if i == 0 else (),
            [Illustration(figure_name(name), drawn, name)] if i < 3 else (),
        )
        for i, name in enumerate(NAMES)
    ]
    pairs = [(name, name) for name in NAMES]
    return write_curve_page(
        CurvePage(NAMES[0], NAMES[1], NAMES, sections, dict(pairs), NAMES, pairs), folder
    )


@pytest.fixture(scope="module")
def curve_pages(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return [make(tmp_path_factory.mktemp("curves")) for make in (monitored, validated, all_hostile)]


def test_pages_of_curves_hold_hostile_names_as_they_are_and_stay_in_their_folder(
    curve_pages: Sequence[Path],
) -> None:
    for page in curve_pages:
        check_figures(page.parent / "figures")
        json.loads((page.parent / "summary.json").read_text(encoding="utf-8"))
    assert {path.name for path in curve_pages[1].parent.parent.iterdir()} == {"report"}


@needs_browser
def test_pages_of_curves_show_hostile_names_and_run_none(
    browser: webdriver.Chrome, curve_pages: Sequence[Path]
) -> None:
    for page in curve_pages:
        open_page(browser, page, explorer=False)
        check_that_nothing_struck(browser)
        check_that_the_policy_holds(browser)
    assert cells(browser, "s0", 1) == [as_parsed(name) for name in NAMES]
    assert cells(browser, "s0", 3) == [as_parsed(name) for name in NAMES]
