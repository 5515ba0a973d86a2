"""The content of a summary: columns that hold values, missing entries, and the keys that other programs read."""

import json

import numpy as np
import pandas as pd
from run_records import record_of
from test_reports_statistics import COEFFICIENTS, entry, sample

from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.statistics.sample import (
    scores_of,
    succeeded,
    targets_of,
    values,
)
from dsmi_zoo.reports.statistics.summary import missing_entries, summarise


def test_measures_and_targets_are_the_columns_that_hold_values():
    rows = rows_frame(
        [
            entry(
                "a",
                dse_z=1.0,
                own_measures="mine other",
                mine=2.0,
                other=None,
                top5=90.0,
                real_top1=80.0,
            ),
            entry("b", own_measures="mine top1", subset_top1=40.0),
            entry("c", status="failed", csmi_z_y=1.0, top1=5.0),
        ]
    )
    assert scores_of(rows) == ["dse_z", "mine", "img_size", "subset_top1"]
    assert targets_of(rows) == ["top5", "real_top1"]
    assert succeeded(rows)["model"].tolist() == ["a", "b"]


def test_what_is_no_number_is_missing():
    rows = pd.DataFrame({"x": [1, None, "word", np.inf, True]})
    np.testing.assert_array_equal(values(rows, "x"), [1, np.nan, np.nan, np.nan, 1])
    assert np.isnan(values(rows, "absent")).all()


def test_missing_entries_are_the_planned_ones_without_a_row():
    rows = rows_frame([entry("a"), entry("b", status="failed")])
    planned = [
        EntryRecord(model=model, img_size=size, slug=f"{model}-{size}", row_id="r")
        for model, size in (("a", 32), ("a", 64), ("b", 32))
    ]
    assert missing_entries(rows, planned) == [{"model": "a", "img_size": 64}]
    summary = summarise(rows, record_of(*planned))
    assert summary.models == {"total": 3, "ok": 1, "failed": 1, "missing": 1}


def test_the_summary_keeps_its_contract():
    x, y, family = sample(13, families=8)
    rows = rows_frame(
        [
            entry(
                f"m{i}",
                architecture=f"f{f}",
                dsmi_z_y=a,
                cse_z=3.0,
                top1=50 + 5 * b,
                saturated=i == 2,
                median_distance_over_sigma=0.5 if i == 3 else 1.0,
            )
            for i, (a, b, f) in enumerate(zip(x, y, family, strict=True))
        ]
        + [entry("broken", status="failed", error_type="ValueError", error_message="no")]
    )
    content = json.loads(json.dumps(summarise(rows).as_json(), allow_nan=False))
    assert content["models"] == {"total": 25, "ok": 24, "failed": 1, "missing": 0}
    found = content["correlations"]["dsmi_z_y"]["top1"]
    assert found["n"] == 24
    for name in COEFFICIENTS:
        low, high = found[name]["ci"]
        assert low < found[name]["value"] < high, name
    assert found["pearson"]["p"] > 0
    undefined = content["correlations"]["cse_z"]["top1"]["pearson"]
    assert (undefined["value"], undefined["p"], undefined["ci"]) == (None, None, None)
    assert content["saturated"] == [{"model": "m2", "img_size": 32}]
    assert content["off_scale"] == [{"model": "m3", "img_size": 32}]
    failure = {"model": "broken", "img_size": 32, "error_type": "ValueError", "error_message": "no"}
    assert content["failures"] == [failure]
    assert content["primary"] == {"measure": "dsmi_z_y", "target": "top1"}
    assert content["resampling"]["unit"] == "architecture"
    assert content["resampling"]["units"] == 8
