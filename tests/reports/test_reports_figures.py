"""Figures: valid files, the same bytes each time, whatever the rows hold."""

import re
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.figures.scatter import forest, score_scatter
from dsmi_zoo.reports.statistics.bootstrap import small_sample
from dsmi_zoo.reports.statistics.correlation import Bootstraps, correlate
from dsmi_zoo.reports.statistics.regression import family_band, ols
from dsmi_zoo.reports.statistics.sample import values
from dsmi_zoo.reports.statistics.summary import ranked_measures, summarise

pytestmark = pytest.mark.long


def frame(n=12, groups=("few images", "many images"), **columns):
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    rows = [
        {
            "model": f"m{i}", "architecture": f"a{i // 2}", "img_size": 32, "status": "ok",
            "median_distance_over_sigma": 3.0 if i % 5 == 0 else 1.0,
            "group": groups[i % len(groups)] if groups else None, "dsmi_z_y": x[i], "top1": 50 + 10 * x[i] + i % 3,
        }
        | columns
        for i in range(n)
    ]  # fmt: skip
    return rows_frame(rows)


def scatter(rows):
    x, y = values(rows, "dsmi_z_y"), values(rows, "top1")
    found = correlate(x, y, rows["architecture"], Bootstraps(20, 5))
    return score_scatter(rows, "dsmi_z_y", "top1", found, ols(x, y))


def check_png(data):
    """Check the signature, the chunks' checksums and the end; return (width, height)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert (
            zlib.crc32(kind + body)
            == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        )
        kinds.append(kind)
        at += 12 + length
    assert (kinds[0], kinds[-1]) == (b"IHDR", b"IEND")
    return struct.unpack(">II", data[16:24])


def check(rendered):
    assert ElementTree.fromstring(rendered.svg).tag == "{http://www.w3.org/2000/svg}svg"
    width, height = check_png(rendered.png)
    assert 700 < width < 1500
    assert 200 < height < 3000
    assert rendered.description


@pytest.mark.parametrize(
    "rows",
    [
        frame(),
        frame(0),
        frame(1),
        frame(2),
        frame(6, dsmi_z_y=3.0),
        frame(6, top1=40.0),
        frame(6, dsmi_z_y=3.0, top1=40.0),
        frame(6, dsmi_z_y=None),
        frame(6, status="failed"),
        frame(6, groups=()),
        frame(30, groups=[f"group {i}" for i in range(11)]),
        frame(30, groups=[f"group {i}" for i in range(10)]),
        frame(6, groups=("x" * 300, "_hidden", "$\\frac{1$ & <b>\x00\n\t-- 数字")),
        frame(6, dsmi_z_y=1e300),
    ],
    ids=[
        "usual", "no row", "one row", "two rows", "constant measure", "constant accuracy", "both constant", "no value",
        "all failed", "no groups", "too many groups", "ten groups", "hostile groups", "huge values",
    ],
)  # fmt: skip
def test_a_scatter_copes_with(rows):
    check(scatter(rows))


def test_many_rows_stay_a_small_picture():
    rendered = scatter(frame(1500))
    check(rendered)
    assert len(rendered.png) < 300_000


def test_the_same_rows_give_the_same_bytes():
    assert scatter(frame()) == scatter(frame())
    assert b"<dc:date>" not in scatter(frame()).svg


def test_a_scatter_shows_saturation_groups_and_the_band():
    shown = legend_labels(frame(12))
    assert shown == [
        "few images",
        "many images",
        "off scale",
        "least squares, 95% band over architectures",
    ]
    assert legend_labels(frame(6))[-1] == "least squares"


def test_the_band_is_from_the_lines_of_the_resamples_corrected_for_few_families():
    rng = np.random.default_rng(10)
    family = np.repeat(np.arange(12), 3)
    x = rng.normal(size=12)[family] + rng.normal(size=36)
    y = 0.5 * x + rng.normal(size=12)[family] + rng.normal(size=36)
    bootstraps, at = Bootstraps(200), np.array([-1.0, 0.0, 2.0])
    lines = []
    for drawn in bootstraps.of(family).counts:
        copies = np.repeat(np.arange(len(x)), drawn[family])
        slope, intercept = np.polyfit(x[copies], y[copies], 1)
        lines.append(intercept + slope * at)
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - intercept - slope * x
    low, high = family_band(x, y, family, at, bootstraps)
    for i, place in enumerate(at):
        weight = 1 + (place - x.mean()) * (x - x.mean()) / x.var()
        ends = np.quantile(np.array(lines)[:, i], stats.norm.cdf([-1, 1]))
        half = small_sample(family, weight * residual).half_width(np.diff(ends)[0] / 2)
        assert (low[i], high[i]) == pytest.approx(
            (intercept + slope * place - half, intercept + slope * place + half)
        )
    assert family_band(x, y, family % 4, at, bootstraps) is None


def test_more_than_ten_groups_are_not_coloured():
    rows = frame(30, groups=[f"group {i}" for i in range(11)], median_distance_over_sigma=1.0)
    assert legend_labels(rows) == ["least squares, 95% band over architectures"]


def test_long_and_underscored_group_names_stay_in_the_legend():
    shown = legend_labels(frame(12, groups=("_first", "g" * 200), median_distance_over_sigma=1.0))
    assert shown[0].endswith("_first")
    assert len(shown[1]) == 36


def legend_labels(rows):
    """Return the legend's labels: Matplotlib writes each text in a comment, those of the legend last."""
    texts = re.findall("<!-- (.*?) -->", scatter(rows).svg.decode())
    return texts[texts.index("DSMI(Z;Y) and top-1 accuracy") + 1 :]


def test_the_forest_shows_every_measure_the_undefined_too():
    summary = summarise(frame(cse_z=8.8, own_measures="my_$own", **{"my_$own": 1.0}))
    order = ranked_measures(summary, "top1")
    rendered = forest(summary.correlations, "top1", order)
    check(rendered)
    assert order[0] == "dsmi_z_y"
    assert "CSE(Z) –" in rendered.description
    assert "my_$own –" in rendered.description


def test_the_forest_of_nothing_is_an_empty_figure():
    check(forest({}, "top1", []))
