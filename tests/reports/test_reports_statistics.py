"""The report's statistics, each number against an independent computation or a known answer."""

import json
import warnings
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.statistics import bootstrap as resampling
from dsmi_zoo.reports.statistics.bootstrap import (
    SmallSample,
    influence_on_spearman,
    interval,
    shared_part,
    small_sample,
)
from dsmi_zoo.reports.statistics.correlation import (
    MIN_UNITS,
    Bootstraps,
    Coefficient,
    correlate,
    holm,
)
from dsmi_zoo.reports.statistics.regression import ols
from dsmi_zoo.reports.statistics.sample import groups_of
from dsmi_zoo.reports.statistics.summary import summarise

COEFFICIENTS = ("pearson", "spearman", "kendall", "weighted_kendall")


def resampled(name):
    """Return the function (x, y, counts, unit) -> the coefficient in every resample."""

    def shared(x, y, counts, unit):
        return getattr(resampling.Resamples(unit, counts), name)(x, y)

    return shared


RESAMPLED = {
    "pearson": (resampled("pearson"), lambda x, y: stats.pearsonr(x, y).statistic),
    "spearman": (resampled("spearman"), lambda x, y: stats.spearmanr(x, y).statistic),
    "kendall": (resampled("kendall"), lambda x, y: stats.kendalltau(x, y).statistic),
    "weighted_kendall": (
        resampled("weighted_kendall"),
        lambda x, y: stats.weightedtau(x, y).statistic,
    ),
}


def entry(model, **columns):
    return {"model": model, "architecture": model, "img_size": 32, "status": "ok", **columns}


def sample(seed=0, families=12, size=3, ties=False):
    """Return x, y and families, each [families * size]; x and y have a family effect."""
    rng = np.random.default_rng(seed)
    family = np.repeat(np.arange(families), size)
    x = rng.normal(size=families)[family] + rng.normal(size=len(family))
    y = 0.5 * x + rng.normal(size=families)[family] + rng.normal(size=len(family))
    return (x.round(), y.round(), family) if ties else (x, y, family)


def test_coefficients_and_p_values_are_scipys():
    x, y, family = sample()
    found = correlate(x, y, family, Bootstraps(10, 10))
    for name, expected in {
        "pearson": stats.pearsonr(x, y),
        "spearman": stats.spearmanr(x, y),
        "kendall": stats.kendalltau(x, y),
    }.items():
        estimate = getattr(found, name)
        assert (estimate.value, estimate.p) == (
            pytest.approx(expected.statistic),
            pytest.approx(expected.pvalue),
        ), name
    assert found.weighted_kendall.value == pytest.approx(stats.weightedtau(x, y).statistic)
    assert found.weighted_kendall.p is None
    assert (found.n, found.units) == (36, 12)


def test_pearson_is_numpys():
    x, y, family = sample(1)
    assert correlate(x, y, family, Bootstraps(10, 10)).pearson.value == pytest.approx(
        np.corrcoef(x, y)[0, 1], abs=1e-12
    )


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("families", "size"), [(12, 3), (20, 1)])
def test_weighted_resamples_equal_a_loop_that_copies_rows(name, ties, families, size):
    x, y, family = sample(2, families, size, ties)
    counts = resampling.draw(families, 60, seed=3)
    table = pd.DataFrame({"x": x, "y": y, "family": family})
    by_family = dict(list(table.groupby("family")))
    vectorised, plain = RESAMPLED[name]
    loop = []
    for drawn in counts:
        copies = pd.concat([by_family[i] for i in np.repeat(np.arange(families), drawn)])
        loop.append(plain(copies["x"].to_numpy(), copies["y"].to_numpy()))
    np.testing.assert_allclose(
        vectorised(x, y, counts, family),
        loop,
        rtol=0,
        atol=1e-5 if name in ("pearson", "spearman") else 1e-12,
    )


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_intervals_are_fishers_with_the_error_corrected_for_few_unequal_families(name):
    x, y, family = sample(4)
    x, y, family = x[:-2], y[:-2], family[:-2]
    counts = resampling.draw(12, 200, seed=5)
    drawn = RESAMPLED[name][0](x, y, counts, family)
    found = getattr(correlate(x, y, family, Bootstraps(200, 200, seed=5)), name)
    small = small_sample(family, influence_on_spearman(x, y))
    low, high = np.quantile(
        np.arctanh(np.clip(drawn, -1 + 34**-2, 1 - 34**-2)), stats.norm.cdf([-1, 1])
    )
    error = small.scale * (high - low) / 2
    t = np.arctanh(found.value) / error
    half = stats.t.ppf(0.975, small.degrees) * error
    assert found.ci == pytest.approx(
        tuple(np.tanh(np.arctanh(found.value) + np.array([-half, half]))), abs=1e-6
    )
    assert found.p_families == pytest.approx(2 * stats.t.sf(abs(t), small.degrees), abs=1e-6)


def test_the_error_of_g_equal_families_is_scaled_and_has_g_less_one_degrees():
    found = small_sample(np.repeat(np.arange(16), 3))
    assert (found.scale, found.degrees) == pytest.approx((np.sqrt(16 / 15), 15))
    assert small_sample(np.zeros(4, dtype=int)) == SmallSample(1.0, 1.0)


def test_scale_and_degrees_are_mean_and_spread_of_the_estimated_variance():
    """Copies within families: simulated E and 2 E^2 / Var of the variance that a bootstrap of families estimates."""
    rng = np.random.default_rng(0)
    sizes = np.array([30.0, 20, 10, 5, 5, 2, 1, 1, 1])
    u = rng.normal(size=(200_000, len(sizes)))
    mean = u @ sizes / sizes.sum()
    estimated = ((sizes * (u - mean[:, None])) ** 2).sum(axis=1) / sizes.sum() ** 2
    found = small_sample(np.repeat(np.arange(len(sizes)), sizes.astype(int)))
    assert found.scale**2 * estimated.mean() == pytest.approx(mean.var(), rel=0.02)
    assert found.degrees == pytest.approx(2 * estimated.mean() ** 2 / estimated.var(), rel=0.03)


def test_scale_and_degrees_are_those_of_the_quadratic_forms_matrix():
    sizes = np.array([7, 4, 4, 2, 1, 1])
    unit = np.repeat(np.arange(6), sizes)
    numbers = np.random.default_rng(1).normal(size=6)[unit] + np.random.default_rng(2).normal(
        size=19
    )
    r = shared_part(unit, numbers)
    centring = np.eye(6) - np.outer(sizes / 19, np.ones(6))
    covariance = np.diag(sizes * (1 + (sizes - 1) * r))
    form = centring @ covariance @ centring.T
    found = small_sample(unit, numbers)
    assert found.scale**2 == pytest.approx(np.trace(covariance) / np.trace(form))
    assert found.degrees == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form))


def test_the_shared_part_is_the_intraclass_correlation_of_a_simulation():
    rng = np.random.default_rng(3)
    unit = np.repeat(np.arange(900), rng.integers(1, 6, size=900))
    numbers = np.sqrt(0.3) * rng.normal(size=900)[unit] + np.sqrt(0.7) * rng.normal(size=len(unit))
    assert shared_part(unit, numbers) == pytest.approx(0.3, abs=0.05)
    assert shared_part(unit, rng.normal(size=900)[unit]) == pytest.approx(1)


def test_an_interval_excludes_zero_where_p_is_below_5_percent_and_only_there():
    rng = np.random.default_rng(0)
    for shift in np.linspace(-0.9, 0.9, 13):
        ci, p, _ = interval(
            shift, np.clip(shift + 0.2 * rng.normal(size=500), -1, 1), SmallSample(1.03, 14), 40
        )
        assert (p < 0.05) == (ci[0] > 0 or ci[1] < 0)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_a_resample_in_which_a_column_is_constant_is_undefined(name):
    x, y = np.array([0.1, 0.1, 0.1, 0.7]), np.array([1.0, 2.0, 4.0, 3.0])
    counts = np.array([[2, 1, 1, 0], [1, 1, 1, 1]])
    found = RESAMPLED[name][0](x, y, counts, np.arange(4))
    assert np.isnan(found[0])
    assert np.isfinite(found[1])


def test_copies_within_a_family_widen_the_interval_over_families_but_not_over_rows():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(2, 20))
    x, y, family = np.repeat(x, 8), np.repeat(y, 8), np.repeat(np.arange(20), 8)
    clustered = correlate(x, y, family, Bootstraps(2000, 30))
    by_row = correlate(x, y, np.arange(160), Bootstraps(2000, 30))
    for name in COEFFICIENTS[:3]:
        widths = [float(np.diff(getattr(c, name).ci)[0]) for c in (clustered, by_row)]
        assert widths[0] > 2 * widths[1], name


@pytest.mark.parametrize("sizes", [[3] * 16, [40, 30, 20, *[8] * 10, *[3] * 20, *[1] * 20]])
def test_a_measure_without_relation_is_outside_the_interval_in_1_of_20_simulations(sizes):
    rng = np.random.default_rng(7)
    family = np.repeat(np.arange(len(sizes)), sizes)
    leading, independent, simulations = 0, 0, 300
    for seed in range(simulations):
        x, y = (
            rng.normal(size=len(sizes))[family] + 0.5 * rng.normal(size=len(family))
            for _ in range(2)
        )
        drawn = resampling.Resamples.drawn(family, 200, seed).spearman(x, y)
        rho = stats.spearmanr(x, y)
        ci, _, _ = interval(
            rho.statistic, drawn, small_sample(family, influence_on_spearman(x, y)), len(family)
        )
        leading += not ci[0] <= 0 <= ci[1]
        independent += rho.pvalue < 0.05
    assert 0.01 < leading / simulations < 0.11
    assert independent / simulations > 0.14


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    x, y, family = sample(8)
    first, again, other = (correlate(x, y, family, Bootstraps(100, 20, s)) for s in (0, 0, 1))
    assert first == again
    assert first.pearson.ci != other.pearson.ci


def test_pairs_with_a_missing_or_infinite_value_are_left_out():
    x, y, family = sample(9)
    expected = correlate(x[2:], y[2:], family[2:], Bootstraps(50, 20))
    x[0], y[1] = np.nan, np.inf
    assert correlate(x, y, family, Bootstraps(50, 20)) == expected


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([], [], "0 rows"),
        ([1.0, 2.0], [1.0, 2.0], "2 rows"),
        ([np.nan] * 5, [1.0, 2, 3, 4, 5], "0 rows"),
        ([2.0] * 5, [1.0, 2, 3, 4, 5], "the measure is constant"),
        ([8.8 + 1e-12 * i for i in range(5)], [1.0, 2, 3, 4, 5], "the measure is constant"),
        ([1.0, 2, 3, 4, 5], [50.0] * 5, "the accuracy is constant"),
    ],
)
def test_what_is_undefined_is_none_with_its_reason(x, y, reason):
    found = correlate(np.array(x), np.array(y), np.arange(len(x)))
    for name in COEFFICIENTS:
        estimate = getattr(found, name)
        assert (estimate.value, estimate.p, estimate.ci) == (None, None, None)
        assert reason in estimate.reason
    regression = ols(np.array(x), np.array(y))
    assert regression.slope is None
    assert reason in regression.reason


def test_too_few_families_give_a_coefficient_but_no_interval():
    x, y = np.array([1.0, 2, 4, 3]), np.array([1.0, 3, 2, 5])
    found = correlate(x, y, np.arange(4))
    assert found.pearson.value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.pearson.ci is None
    assert f"fewer than {MIN_UNITS}" in found.pearson.reason


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats() | st.floats(-10, 10),
            st.sampled_from([0.0, 10.0, 55.5, 100.0]) | st.floats(0, 100),
        ),
        max_size=12,
    ),
    st.integers(1, 6),
)
@example([(0.0, 0.0), (2e297, 0.0), (-1.797e308, 0.0)], 1)
@example([(0.0, 0.0), (2e297, 10.0), (-1.797e308, 0.0)], 1)
@example([(1.7e308, 0.0), (2e297, 10.0), (-1.797e308, 0.0), (5.0, 60.0)], 2)
def test_any_numbers_give_finite_results_or_none_and_no_warning(pairs, families):
    x, y = np.array(pairs, dtype=float).reshape(-1, 2).T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = correlate(x, y, np.arange(len(x)) % families, Bootstraps(40, 10))
        regression = ols(x, y)
    json.dumps([asdict(found), asdict(regression)], allow_nan=False)
    for name in COEFFICIENTS:
        estimate: Coefficient = getattr(found, name)
        assert estimate.value is None or -1 - 1e-9 <= estimate.value <= 1 + 1e-9
        assert (estimate.value is None) <= (estimate.reason is not None)
        assert estimate.ci is None or estimate.ci[0] <= estimate.ci[1]


def simpson():
    """Return rows of three groups: the measure falls with accuracy within each and rises over all of them."""
    rng = np.random.default_rng(12)
    rows = [
        entry(
            f"a{i}.{g}",
            architecture=f"a{i}",
            group=f"{10 ** (g + 1)} images",
            dsmi_z_y=g + shift,
            top1=30 * g + 20 - 8 * shift,
        )
        for g in range(3)
        for i, shift in enumerate(rng.uniform(-0.5, 0.5, size=10))
    ]
    return rows_frame(rows)


def test_simpsons_paradox_shows_as_opposite_signs_pooled_and_within_groups():
    summary = summarise(simpson())
    assert summary.correlations["dsmi_z_y"]["top1"].pearson.value > 0.9
    assert list(summary.within_groups) == ["10 images", "100 images", "1000 images"]
    for group in summary.within_groups.values():
        assert group["dsmi_z_y"]["top1"].pearson.value == pytest.approx(-1)
        assert group["dsmi_z_y"]["top1"].n == 10
    assert summary.correlations["dsmi_z_y"]["top1"].units == 10


def test_one_group_or_none_has_no_within_group_part():
    rows = simpson()
    assert groups_of(rows.assign(group="all")) == []
    assert groups_of(rows.assign(group=None)) == []
    assert groups_of(rows.assign(group="")) == []


@settings(max_examples=25)  # statsmodels collects garbage at each call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holms_correction_is_that_of_statsmodels(p: list[float]) -> None:
    expected = multipletests(p, method="holm")[1]
    assert list(holm(dict(enumerate(p))).values()) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("families", [6, 40])
def test_columns_ranked_together_have_the_very_rho_of_pair_by_pair(families, monkeypatch):
    rng = np.random.default_rng(7)
    unit = np.r_[np.arange(families), rng.integers(families, size=60 - families)]
    scores = [rng.normal(size=60), rng.integers(5, size=60).astype(float), np.ones(60)]
    targets = [rng.normal(size=60), rng.integers(9, size=60).astype(float)]
    one_by_one = resampling.Resamples.drawn(unit, 50, seed=1)
    expected = [one_by_one.spearman(x, y) for x in scores for y in targets]
    monkeypatch.setattr(resampling, "CHUNK_BYTES", 0)
    monkeypatch.setattr(resampling, "FEWEST_AT_ONCE", 7)
    together = resampling.Resamples.drawn(unit, 50, seed=1)
    together.rank(scores, targets)
    monkeypatch.setattr(together, "_ranks_in", None)  # nothing is ranked again
    found = [together.spearman(x, y) for x in scores for y in targets]
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found[-1]).all()
