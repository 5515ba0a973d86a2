"""The first sentences of a report: the answer and its uncertainty."""

import re

import numpy as np
import pytest
from test_reports_page import entry

from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.page.analysis import target_tables
from dsmi_zoo.reports.page.context import answer, lead
from dsmi_zoo.reports.statistics.summary import summarise

pytestmark = pytest.mark.long


def test_a_weak_correlation_is_not_called_one(tmp_path):
    rng = np.random.default_rng(3)
    rows = rows_frame(
        [entry(i, dsmi_z_y=rng.normal(), top1=50 + rng.normal(), group=None) for i in range(40)]
    )
    sentences = lead(summarise(rows))
    assert "show no clear correlation" in sentences[0]
    assert "includes 0" in sentences[0]


def summary_of(**columns):
    """Return the summary of 40 models of 40 families; each column is a slope in accuracy, and the noise around it."""
    rng = np.random.default_rng(1)
    accuracy = rng.normal(size=40)
    rows = [
        entry(i, top1=50 + 10 * accuracy[i], group=None, architecture=f"net{i}", dse_z=None)
        for i in range(40)
    ]
    for name, (slope, noise) in columns.items():
        for row, value in zip(rows, slope * accuracy + noise * rng.normal(size=40), strict=True):
            row[name] = value
    return summarise(rows_frame(rows))


def test_the_answer_compares_strengths_whichever_the_sign():
    said = answer(summary_of(dsmi_z_y=(1, 1), params_m=(0, 0), rankme=(-1, 0.01)))
    assert (
        "RankMe orders these models best: its Spearman's rho with top-1 accuracy is −1.00 (95% interval"
        in said
    )
    assert re.search(
        r"DSMI\(Z;Y\) trails by 0\.\d\d in \|rho\| \(95% interval 0\.\d\d to 0\.\d\d, p by Holm < 0\.001\), "
        r"more than chance would explain\.$",
        said,
    )


def test_the_answer_does_not_set_the_luckiest_of_many_apart():
    noise = dict.fromkeys(
        ("logme", "h_score", "transrate", "rankme", "dsmi_z_x", "csmi_z_y", "csmi_z_x"), (1, 1.2)
    )
    assert answer(summary_of(dsmi_z_y=(1, 1.3), **noise)).endswith("so the gap may be chance.")


def test_the_lead_recommends_nothing_and_tells_how_the_simple_scores_do():
    sentences = lead(
        summary_of(
            dsmi_z_y=(1, 1),
            dsmi_z_y_scale_free=(1, 0.01),
            neighbour_accuracy=(1, 0.1),
            centre_accuracy=(1, 0.1),
        )
    )
    assert any(
        re.search(r"^Nearest centre: rho = 0\.\d\d; 10 nearest neighbours: rho = 0\.\d\d\.$", s)
        for s in sentences
    )
    assert not any("recommended" in s or "preferred" in s for s in sentences)


def test_the_answer_and_the_table_give_one_difference():
    summary = summary_of(dsmi_z_y=(1, 1), rankme=(-1, 0.6), logme=(1, 0.9))
    table = target_tables(summary, "top1")["correlations"]
    (cells,) = [row for row in table.rows if row[0].value == "RankMe"]
    cell = cells[table.heads.index("|rho| minus that of DSMI(Z;Y)")]
    assert f"trails by {cell.value} in |rho| (95% interval {cell.ci}, p by Holm " in answer(summary)


def test_an_interval_that_says_nothing_is_left_out_with_its_reason():
    rng = np.random.default_rng(0)
    summary = summarise(
        rows_frame([entry(i, dsmi_z_y=i + 4 * rng.normal(), rankme=float(i)) for i in range(12)])
    )
    wide = summary.differences["rankme"].ci
    assert wide[1] == 1  # the largest possible difference of |rho|
    assert "in |rho| (no interval: over 6 architectures it would span 1 or more, p" in answer(
        summary
    )
    assert "would span 1 or more have none" in target_tables(summary, "top1")["correlations"].note
