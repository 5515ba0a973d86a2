"""The report's conclusions beyond single correlations, each number against an independent computation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from conftest import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression

from dsmi_zoo.pipeline.store.run_folder import read_results, read_run, rows_frame
from dsmi_zoo.reports.statistics import fidelity
from dsmi_zoo.reports.statistics.bootstrap import draw
from dsmi_zoo.reports.statistics.comparison import compare
from dsmi_zoo.reports.statistics.correlation import (
    Bootstraps,
    Coefficient,
    Correlation,
    correlations,
    partial_correlation,
    partial_correlations,
    resampled_partial,
    with_holm,
)
from dsmi_zoo.reports.statistics.regression import clustered_errors, influences, multiple
from dsmi_zoo.reports.statistics.sample import (
    effective_number,
    families_of,
    one_row_per_weights,
    scores_of,
    sign_of,
    values,
)
from dsmi_zoo.reports.statistics.standing import differences
from dsmi_zoo.reports.statistics.summary import summarise

pytestmark = pytest.mark.long

FEW = Bootstraps(200, 20)


def zoo(seed: int = 0, families: int = 12, size: int = 4) -> pd.DataFrame:
    """Return rows with a family effect; DSMI(Z;Y) predicts top-1 accuracy, and the nearest neighbours do so better."""
    rng = np.random.default_rng(seed)
    n = families * size
    family = np.repeat(np.arange(families), size)
    quality = rng.normal(size=families)[family] + rng.normal(size=n)
    rows = [
        {
            "model": f"m{i}", "architecture": f"a{i}", "family": f"f{family[i]}", "img_size": (224, 288)[i % 2],
            "status": "ok", "kind": ("convolutional", "transformer")[family[i] % 2], "own_measures": "",
            "pretraining": ("in1k", "in21k")[i % 2], "extra_data": bool(i % 2),
            "median_distance_over_sigma": 1.0 + (i % 7 == 0) * 2,
            "dsmi_z_y": quality[i] + rng.normal(), "dsmi_z_y_null": 0.1 * rng.normal(), "dse_z": rng.normal(),
            "dsmi_z_x": rng.normal(), "neighbour_accuracy": 50 + 5 * (quality[i] + 0.3 * rng.normal()),
            "within_over_between": -quality[i], "embedding_rms": np.exp(rng.normal()), "embedding_dim": 64 + i,
            "params_m": float(np.exp(rng.normal() + 0.5 * quality[i])), "gmacs": float(1 + i),
            "top1": 60 + 8 * quality[i], "real_top1": 65 + 8 * quality[i], "top5": 80 + 4 * quality[i],
        }
        for i in range(n)
    ]  # fmt: skip
    return rows_frame(rows)


def test_the_effective_number_of_families_is_kishs() -> None:
    assert effective_number(np.repeat(np.arange(7), 3)) == pytest.approx(7)
    assert effective_number(np.array(["a"] * 9 + ["b"])) == pytest.approx(100 / 82)
    assert effective_number(np.array([])) == 0


def test_one_row_stands_for_each_set_of_weights_at_its_smallest_size() -> None:
    rows = zoo(size=2)
    both = pd.concat([rows.assign(img_size=384), rows.assign(img_size=160)], ignore_index=True)
    sample = one_row_per_weights(both)
    assert sorted(sample["model"]) == sorted(rows["model"])
    assert (sample["img_size"] == 160).all()
    summary = summarise(both)
    assert (summary.sample, summary.models["ok"]) == (len(rows), 2 * len(rows))
    assert summary.correlations["dsmi_z_y"]["top1"].n == len(rows)
    named = [v.name for v in summary.robustness]
    assert "all image sizes of each model" in named


def test_relatives_are_timms_families_and_in_a_grouped_zoo_architectures() -> None:
    rows = zoo()
    assert families_of(rows)[0] == "family"
    grouped = rows.assign(group=["small", "large"] * (len(rows) // 2))
    assert families_of(grouped)[0] == "architecture"
    assert families_of(rows.assign(family=None))[0] == "architecture"
    unknown = families_of(rows.assign(family=[None, *rows["family"][1:]]))[1]
    assert unknown.iloc[0] == rows["model"].iloc[0]


def test_baselines_are_scores_too_and_less_is_better_where_it_is() -> None:
    rows = zoo()
    assert {"log10_params", "log10_gmacs", "img_size", "extra_data"} <= set(scores_of(rows))
    np.testing.assert_allclose(values(rows, "log10_gmacs"), np.log10(rows["gmacs"].astype(float)))
    assert (sign_of("within_over_between"), sign_of("dsmi_z_y")) == (-1, 1)


def test_leverage_and_cooks_distance_are_their_textbook_formulas() -> None:
    rows = zoo(4)
    x, y = values(rows, "dsmi_z_y"), values(rows, "top1")
    design = np.column_stack([np.ones_like(x), x])
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    residual = y - hat @ y
    leverage = np.diag(hat)
    cooks = (
        residual**2 / (2 * (residual @ residual) / (len(x) - 2)) * leverage / (1 - leverage) ** 2
    )
    found = {i.model: i for i in influences(rows, "dsmi_z_y", "top1")}
    for i, model in enumerate(rows["model"]):
        assert found[model].leverage == pytest.approx(leverage[i])
        assert found[model].residual == pytest.approx(residual[i])
        assert found[model].cooks_distance == pytest.approx(cooks[i])
    ordered = [i.cooks_distance for i in influences(rows, "dsmi_z_y", "top1")]
    assert ordered == sorted(ordered, reverse=True)


def test_a_partial_correlation_given_one_control_is_the_textbook_formula() -> None:
    rows = zoo(5)
    x, y, z = (values(rows, name) for name in ("dsmi_z_y", "top1", "log10_params"))
    xy, xz, yz = (stats.pearsonr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    found = partial_correlations(rows, "top1", FEW)["log parameters"]["dsmi_z_y"]
    assert isinstance(found, Correlation)
    assert found.pearson.value == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))


def test_a_score_that_follows_scale_alone_has_nothing_left_given_scale() -> None:
    rows = zoo(6)
    rng = np.random.default_rng(0)
    rms = np.exp(rng.normal(size=len(rows)))
    rows = rows.assign(
        embedding_rms=rms,
        top1=60 + 5 * np.log10(rms) + rng.normal(size=len(rows)),
        dsmi_z_y=np.log10(rms),
    )
    rows["dsmi_z_y"] += 0.1 * rng.normal(size=len(rows))
    assert stats.spearmanr(rows["dsmi_z_y"], rows["top1"]).statistic > 0.7
    found = partial_correlations(rows, "top1", FEW)["log embedding scale and dimension"]["dsmi_z_y"]
    assert isinstance(found, Correlation)
    assert found.pearson.ci is not None
    assert found.pearson.ci[0] < 0 < found.pearson.ci[1]


def test_partial_correlations_are_refitted_as_by_a_loop_that_copies_rows() -> None:
    rng = np.random.default_rng(15)
    unit = np.repeat(np.arange(8), [5, 1, 3, 4, 2, 6, 3, 4])
    given = rng.normal(size=(28, 2))
    x, y = given @ [1, 2] + rng.normal(size=28), given @ [2, -1] + rng.normal(size=28)
    counts = draw(8, 30, seed=0)
    loop = []
    for drawn in counts:
        copies = np.repeat(np.arange(28), drawn[unit])
        model = LinearRegression()
        left = [
            v[copies] - model.fit(given[copies], v[copies]).predict(given[copies]) for v in (x, y)
        ]
        loop.append(stats.pearsonr(*left).statistic)
    np.testing.assert_allclose(resampled_partial(x, y, given, counts, unit), loop, atol=1e-9)


def test_no_partial_correlation_is_seen_where_none_is_in_19_of_20_zoos() -> None:
    unit = np.repeat(np.arange(16), 3)
    rng = np.random.default_rng(16)
    wrong = 0
    for _ in range(200):
        given = rng.normal(size=(16, 2))[unit] + 0.3 * rng.normal(size=(48, 2))
        x, y = (
            given.sum(axis=1) + rng.normal(size=16)[unit] + 0.3 * rng.normal(size=48)
            for _ in range(2)
        )
        p = partial_correlation(x, y, given, unit, Bootstraps(300)).pearson.p_families
        wrong += p is not None and p < 0.05
    assert wrong / 200 < 0.09


def test_the_multiple_regression_is_statsmodels_on_standardised_predictors() -> None:
    rows = zoo(7)
    found = multiple(rows, "top1")
    names = [c.name for c in found.coefficients]
    assert names == ["dsmi_z_y", "dsmi_z_x", "dse_z", "log10_params", "img_size"]
    frame = pd.DataFrame(
        {name: stats.zscore(values(rows, name), ddof=1) for name in names}
        | {"y": values(rows, "top1")}
    )
    fit = smf.ols("y ~ " + " + ".join(names), frame).fit()
    for i, c in enumerate(found.coefficients, start=1):
        errors = clustered_errors(fit.model.exog, fit.model.endog, pd.factorize(rows["family"])[0])
        assert (c.value, c.p) == pytest.approx((fit.params[c.name], errors.p[i]))
        assert c.ci == pytest.approx((errors.low[i], errors.high[i]))
    assert found.r2 == pytest.approx(fit.rsquared)
    assert "img_size" in multiple(rows.assign(img_size=224), "top1").left_out
    assert multiple(rows.iloc[:6], "top1").reason


def test_of_collinear_predictors_the_later_named_is_left_out_with_its_reason() -> None:
    rows = zoo(7)
    rng = np.random.default_rng(1)
    rows["dsmi_z_x"] = rows["dsmi_z_y"] + 0.1 * rng.normal(size=len(rows))
    rows["log10_gmacs"] = 2 * values(rows, "log10_params")
    found = multiple(
        rows, "top1", ("dsmi_z_y", "dsmi_z_x", "dse_z", "log10_params", "log10_gmacs", "absent")
    )
    assert [c.name for c in found.coefficients] == ["dsmi_z_y", "dse_z", "log10_params"]
    assert found.left_out == ("dsmi_z_x", "log10_gmacs", "absent")
    assert found.why["absent"] == "unknown"
    assert found.why["log10_gmacs"] == "variance inflation beyond a million"
    columns = np.column_stack(
        [values(rows, name) for name in ("dsmi_z_y", "dsmi_z_x", "dse_z", "log10_params")]
    )
    # The variance inflation factors are the diagonal of the inverse correlation matrix.
    closed_form = np.diag(np.linalg.inv(np.corrcoef(columns.T)))[1]
    assert found.why["dsmi_z_x"] == f"variance inflation {closed_form:,.0f}"
    assert all(1 <= c.inflation <= 10 for c in found.coefficients)
    json.dumps(summarise(rows).as_json(), allow_nan=False)


def test_a_score_and_its_copy_do_not_differ_and_a_better_one_does() -> None:
    rows = zoo(11, families=20)
    rows["dsmi_z_x"] = rows["dsmi_z_y"]
    found = differences(rows, "top1", "dsmi_z_y", FEW)
    assert found["dsmi_z_x"].value == 0
    better = found["neighbour_accuracy"]
    rho = [
        stats.spearmanr(rows[name], rows["top1"]).statistic
        for name in ("neighbour_accuracy", "dsmi_z_y")
    ]
    assert better.value == pytest.approx(rho[0] - rho[1])
    assert better.ci is not None
    assert better.ci[0] > 0
    assert found["within_over_between"].value == pytest.approx(1 - rho[1])
    assert "dsmi_z_y" not in found


def estimated(p: float | None) -> Correlation:
    blank = Coefficient()
    return Correlation(10, 5, 5.0, blank, Coefficient(value=0.1, p_families=p), blank, blank)


def test_holms_correction_spares_the_primary_pair_and_counts_top1_real_and_v2_once() -> None:
    found = with_holm(
        {
            "dsmi_z_y": {
                "top1": estimated(0.04),
                "real_top1": estimated(0.03),
                "top5": estimated(0.02),
            },
            "dse_z": {
                "top1": estimated(0.01),
                "real_top1": estimated(0.5),
                "top5": estimated(0.001),
            },
            "cse_z": {
                "top1": estimated(None),
                "real_top1": estimated(None),
                "top5": estimated(0.9),
            },
        }
    )
    holm = {
        (s, t): c.spearman.p_holm for s, by_target in found.items() for t, c in by_target.items()
    }
    assert holm["dsmi_z_y", "top1"] is None
    assert holm["dsmi_z_y", "real_top1"] is None
    expected = {
        ("dse_z", "top5"): 0.004,
        ("dse_z", "top1"): 0.03,
        ("dsmi_z_y", "top5"): 0.04,
        ("cse_z", "top5"): 0.9,
    }
    for pair, p in expected.items():
        assert holm[pair] == pytest.approx(p), pair
    assert holm["dse_z", "real_top1"] == holm["dse_z", "top1"]


def test_robustness_leaves_out_by_inputs_and_correlates_the_rest() -> None:
    rows = zoo(12)
    found = {v.name: v for v in fidelity.variants(rows, "top1", FEW)}
    rho = found["without extra pretraining data"].spearman.value
    part = rows[~rows["extra_data"].astype(bool)]
    assert rho == pytest.approx(stats.spearmanr(part["dsmi_z_y"], part["top1"]).statistic)
    null = found["DSMI(Z;Y) minus its permutation null"].spearman.value
    assert null == pytest.approx(
        stats.spearmanr(rows["dsmi_z_y"] - rows["dsmi_z_y_null"], rows["top1"]).statistic
    )
    for needed in (
        "without rows whose scale sigma does not fit",
        "convolutional only",
        "transformer only",
        "up to 224 pixels",
    ):
        assert found[needed].n < len(rows), needed
    assert (
        found["without test_* and models under 1 M parameters"].n == (rows["params_m"] >= 1).sum()
    )
    assert any("lowest rho of 2" in name for name in found)
    assert fidelity.published("imagenet-2023", "top1")["dsmi_z_y"] == {
        "pearson": 0.216,
        "spearman": 0.144,
    }
    assert fidelity.published("imagenet-2025", "top1") == {}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 7),
    st.booleans(),
    st.sampled_from(["dsmi_z_y", "top1", "family", "params_m", "img_size", "group"]),
)
def test_few_rows_and_empty_columns_give_reasons_and_nulls_but_never_a_crash(
    n: int, fail: bool, empty: str
) -> None:
    rows = zoo(13).iloc[:n].assign(**{empty: None})
    if fail:
        rows = rows.assign(status="failed")
    content = json.dumps(summarise(rows).as_json(), allow_nan=False)
    assert "NaN" not in content


def test_a_run_compared_with_itself_agrees_and_with_another_tells_the_settings(
    small_run: Path, tmp_path: Path, cli: Command
) -> None:
    rows, run = read_results(small_run), read_run(small_run)
    same = compare(rows, run, rows.iloc[1:], run, "itself")
    assert (same.settings, same.only_here, same.only_there) == ((), 1, 0)
    by_score = {c.score: c for c in same.scores}
    assert by_score["dsmi_z_y"].agreement == pytest.approx(1)
    assert by_score["dsmi_z_y"].median_change == 0
    assert by_score["dsmi_z_y"].here == by_score["dsmi_z_y"].there
    cli("remeasure", "--out", small_run, "--into", tmp_path / "narrow", "--sigma", 2)
    cli("report", "--out", tmp_path / "narrow", "--compare", small_run)
    page = (tmp_path / "narrow" / "report" / "index.html").read_text()
    assert "Compared with small" in page
    assert "measures.sigma = 2.0, not sqrt(d)" in page
    summary = json.loads((tmp_path / "narrow" / "report" / "summary.json").read_text())
    assert [other["with"] for other in summary["compared"]] == ["small"]


def test_weighted_kendall_has_an_interval_for_the_first_accuracy_only_and_says_why() -> None:
    found = correlations(zoo(14), replace(FEW))["dsmi_z_y"]
    assert found["top1"].weighted_kendall.ci is not None
    assert found["top5"].weighted_kendall.ci is None
    assert "first accuracy only" in (found["top5"].weighted_kendall.reason or "")
    assert found["top1"].spearman.ci_rows is not None
