"""Reports of extreme or missing numbers: they are written all the same, and their JSON is valid."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import ask, chromium, console_problems, needs_browser, open_page
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from run_records import record_of

from dsmi_zoo.pipeline.measures.catalog import DIAGNOSTICS, MEASURES
from dsmi_zoo.pipeline.measures.core.hits import pack_hits
from dsmi_zoo.pipeline.monitor.file import NUMBERS, write_monitor
from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.figures.scatter import ranking_scatter
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.page.choice import ranking_lead
from dsmi_zoo.reports.page.training import write_monitor_report
from dsmi_zoo.reports.statistics import ranking
from dsmi_zoo.reports.statistics.sample import values

pytestmark = pytest.mark.long

ODD = (math.inf, -math.inf, math.nan, None, 1e308, -1e308, 1e99, -1e99, 1e-320, 0.0, -1.0)
NUMBER_COLUMNS = (
    "dsmi_z_y",
    "mine",
    "top1",
    "params_m",
    "probe_accuracy",
    "probe_low",
    "probe_high",
    "sigma",
    "epoch",
)
HITS = pack_hits(np.arange(20) % 3 == 0)


def odd_row(
    i: int, numbers: Sequence[float | None], status: str = "ok", size: int | None = 32
) -> dict[str, Any]:
    return {
        "model": f"m{i}", "architecture": f"a{i // 2}", "family": f"f{i // 2}", "img_size": size, "status": status,
        "own_measures": "mine", "row_id": f"r{i}", "probe_hits": HITS, "saturated": None, "embedding_dim": 64,
        **dict(zip(NUMBER_COLUMNS, numbers, strict=True)),
    }  # fmt: skip


def plain_row(i: int, **columns: Any) -> dict[str, Any]:
    noise = np.random.default_rng(i).normal(size=len(NUMBER_COLUMNS))
    return odd_row(i, [float(50 + number) for number in noise]) | columns


number = st.one_of(st.sampled_from(ODD), st.floats(0, 100))
odd_rows = st.lists(
    st.tuples(
        st.lists(number, min_size=len(NUMBER_COLUMNS), max_size=len(NUMBER_COLUMNS)),
        st.sampled_from(("ok", "ok", "failed")),
        st.sampled_from((32, None, 0, 2**62)),
    ),
    max_size=8,
).map(lambda drawn: [odd_row(i, *parts) for i, parts in enumerate(drawn)])


@given(odd_rows)
@example([plain_row(0)])
@example([plain_row(0, status="failed")])
@example(
    [plain_row(i, dsmi_z_y=(1e308, -1e308)[i % 2], top1=(math.inf, 0.0)[i % 2]) for i in range(6)]
)
@example([plain_row(i, mine=None, params_m=-1.0, img_size=None, probe_low=None) for i in range(6)])
@settings(
    max_examples=3, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
def test_odd_numbers_break_no_report(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    page = write_page(rows_frame(rows), record_of(), tmp_path_factory.mktemp("odd"))
    summary = json.loads(
        (page.parent / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail
    )
    assert summary["models"]["total"] == len(rows)


@needs_browser
def test_odd_numbers_break_no_page(tmp_path: Path) -> None:
    rows = [plain_row(i) for i in range(len(ODD) + 6)]
    for i, value in enumerate(ODD):
        rows[i]["mine"], rows[i + 3]["dsmi_z_y"], rows[i + 6]["params_m"] = value, value, value
    with chromium(tmp_path) as browser:
        open_page(browser, write_page(rows_frame(rows), record_of(), tmp_path))
        ask(browser, "model('across').value = 'own mine'")
        assert ask(browser, "return deep(document, '.slick-row').length") > 10
        assert console_problems(browser) == []


def test_numbers_that_no_arithmetic_survives_count_as_missing() -> None:
    rows = pd.DataFrame({"x": [math.inf, 1e308, 1.1e100, 1e100, -1e100, 1e-320, None]})
    assert values(rows, "x").tolist()[3:6] == [1e100, -1e100, 1e-320]
    assert np.isnan(values(rows, "x")[[0, 1, 2, 6]]).all()


def test_a_ranking_stands_without_sizes_intervals_and_prices() -> None:
    bare = {"img_size": None, "probe_low": math.inf, "probe_high": None, "params_m": 0.0}
    rows = rows_frame([plain_row(i, **bare) for i in range(3)])
    ranked = ranking.rank(rows)
    assert (ranked.models[0].img_size, ranked.models[0].low, ranked.cost) == (None, None, None)
    lead = ranking_lead(rows, ranked, record_of())
    assert "cannot be told apart" in lead
    assert "–" not in lead
    assert "None" not in lead
    mixed = ranking.rank(rows_frame([plain_row(i, params_m=(-1.0, 0.0, 5.0)[i]) for i in range(3)]))
    ranking_scatter(mixed)
    assert [m.model for m in mixed.models if m.pareto] == ["m2"]


def test_every_number_of_a_monitored_training_may_be_missing(tmp_path: Path) -> None:
    rows = [
        dict.fromkeys(NUMBERS, math.nan) | {"step": 0.0, "seconds_training": 0.0} for _ in range(2)
    ]
    odd = {m.name: value for m, value in zip((*DIAGNOSTICS, *MEASURES), ODD, strict=False)}
    rows.append(dict.fromkeys(NUMBERS, 1.0) | odd | {"step": 1.0, "seconds_monitor": math.inf})
    write_monitor(tmp_path, rows, {"n": 5, "every": 1, "layer": None, "images_sha256": "0" * 64})
    page = write_monitor_report(tmp_path)
    json.loads(
        (page.parent / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail
    )
