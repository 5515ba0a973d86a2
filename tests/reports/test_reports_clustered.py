"""Clustered errors, against their definition in full matrices and designs that reduce to textbook t tests."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from dsmi_zoo.reports.statistics.regression import Correction, clustered_errors, ols


def drawn(
    seed: int, sizes: list[int], predictors: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a design with a constant, [n, predictors + 1], an outcome and clusters that affect both."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    shared = rng.normal(size=(len(sizes), predictors + 1))[cluster]
    own = rng.normal(size=(len(cluster), predictors + 1))
    columns = shared + own
    return np.column_stack([np.ones(len(cluster)), columns[:, 1:]]), columns[:, 0], cluster


def written_out(
    design: np.ndarray, y: np.ndarray, cluster: np.ndarray, kind: Correction
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and Satterthwaite's degrees of freedom by the published formulas, with full n x n matrices."""
    n, k = design.shape
    clusters = cluster.max() + 1
    bread = np.linalg.inv(design.T @ design)
    annihilator = np.eye(n) - design @ bread @ design.T
    residual = annihilator @ y
    meat = np.zeros((k, k))
    weighted = []
    for g in range(clusters):
        rows = np.flatnonzero(cluster == g)
        own = annihilator[np.ix_(rows, rows)]
        if kind == "CR2":
            adjusted = np.real(linalg.inv(linalg.sqrtm(own)))
        else:
            adjusted = linalg.inv(own) * np.sqrt((clusters - 1) / clusters)
        score = design[rows].T @ adjusted @ residual[rows]
        meat += np.outer(score, score)
        weighted.append(annihilator[:, rows] @ adjusted @ design[rows] @ bread)
    degrees = []
    for j in range(k):
        quadratic = sum(np.outer(p[:, j], p[:, j]) for p in weighted)
        eigenvalues = np.linalg.eigvalsh(quadratic)
        degrees.append(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    return np.sqrt(np.diag(bread @ meat @ bread)), np.array(degrees)


@pytest.mark.parametrize("kind", ["CR2", "CR3"])
@pytest.mark.parametrize("sizes", [[3] * 8, [9, 1, 1, 2, 4, 6, 1], [12, 5, 3, 4, 4]])
def test_errors_and_degrees_are_the_published_formulas_written_out(
    sizes: list[int], kind: Correction
) -> None:
    design, y, cluster = drawn(1, sizes)
    error, degrees = written_out(design, y, cluster, kind)
    found = clustered_errors(design, y, cluster, kind)
    assert found.error == pytest.approx(error)
    assert found.degrees == pytest.approx(degrees)


def test_the_error_is_the_jackknife_that_leaves_each_cluster_out() -> None:
    design, y, cluster = drawn(7, [9, 1, 1, 2, 4, 6, 1])
    whole = np.linalg.lstsq(design, y, rcond=None)[0]
    without = [
        np.linalg.lstsq(design[cluster != g], y[cluster != g], rcond=None)[0] for g in range(7)
    ]
    variance = 6 / 7 * ((np.array(without) - whole) ** 2).sum(axis=0)
    assert clustered_errors(design, y, cluster).error == pytest.approx(np.sqrt(variance))


def test_the_mean_of_equal_clusters_is_the_t_test_of_their_means() -> None:
    design, y, cluster = drawn(2, [4] * 9, predictors=0)
    means = y.reshape(9, 4).mean(axis=1)
    found = clustered_errors(design, y, cluster)
    expected = stats.ttest_1samp(means, 0)
    assert found.degrees[0] == pytest.approx(8)
    assert found.p[0] == pytest.approx(expected.pvalue)
    assert (found.low[0], found.high[0]) == pytest.approx(tuple(expected.confidence_interval()))


def test_two_arms_of_equal_clusters_are_the_t_test_of_their_means() -> None:
    _, y, cluster = drawn(3, [3] * 12)
    treated = (cluster % 2).astype(float)
    means = y.reshape(12, 3).mean(axis=1)
    found = clustered_errors(np.column_stack([np.ones(36), treated]), y, cluster, "CR2")
    expected = stats.ttest_ind(means[1::2], means[::2])
    assert (found.degrees[1], found.p[1]) == pytest.approx((10, expected.pvalue))


def test_two_arms_of_unequally_many_clusters_are_welchs_test_of_their_means() -> None:
    """CR2 is Welch's variance; its degrees of freedom are those at equal variances (Bell and McCaffrey, 2002)."""
    _, y, cluster = drawn(4, [3] * 12)
    treated = (cluster < 4).astype(float)
    means = y.reshape(12, 3).mean(axis=1)
    found = clustered_errors(np.column_stack([np.ones(36), treated]), y, cluster, "CR2")
    assert found.error[1] == pytest.approx(
        np.sqrt(means[:4].var(ddof=1) / 4 + means[4:].var(ddof=1) / 8)
    )
    assert found.degrees[1] == pytest.approx((1 / 4 + 1 / 8) ** 2 / (1 / 4**2 / 3 + 1 / 8**2 / 7))


def test_rows_that_are_their_own_clusters_have_the_error_hc2() -> None:
    design, y, _ = drawn(5, [1] * 20)
    found = clustered_errors(design, y, np.arange(20), "CR2")
    assert found.error == pytest.approx(sm.OLS(y, design).fit(cov_type="HC2").bse)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.lists(st.integers(1, 6), min_size=5, max_size=9), st.floats(0.01, 100)
)
def test_neither_the_order_of_rows_nor_a_predictors_unit_matters(
    seed: int, sizes: list[int], unit: float
) -> None:
    design, y, cluster = drawn(seed, sizes, predictors=1)
    order = np.random.default_rng(seed).permutation(len(y))
    found = clustered_errors(design, y, cluster)
    again = clustered_errors(design[order] * [1, unit], y[order], cluster[order])
    assert again.degrees == pytest.approx(found.degrees, rel=1e-6)
    assert again.error * [1, unit] == pytest.approx(found.error, rel=1e-6)


def test_a_coefficient_that_one_cluster_alone_fixes_has_no_error() -> None:
    """The line goes through that cluster's mean in any case, so its residuals carry no information on the slope."""
    cluster = np.repeat(np.arange(6), 2)
    design = np.column_stack([np.ones(12), cluster == 0])
    y = np.arange(12.0) ** 2
    found = clustered_errors(design, y, cluster)
    assert np.isfinite(found.error[0])
    assert np.isnan([found.error[1], found.degrees[1], found.p[1], found.low[1]]).all()
    alone = ols(design[:, 1], y, cluster)
    assert alone.slope is not None
    assert (alone.error_families, alone.p_families, alone.ci_families) == (None, None, None)


def test_the_slopes_error_in_the_report_is_this_one() -> None:
    design, y, cluster = drawn(6, [5, 4, 3, 3, 2, 1, 1])
    x = 1e3 * design[:, 1] + 7
    found, expected = (
        ols(x, y, cluster),
        clustered_errors(np.column_stack([np.ones_like(x), x]), y, cluster),
    )
    assert found.error_families == pytest.approx(expected.error[1])
    assert found.p_families == pytest.approx(expected.p[1])
    assert found.ci_families == pytest.approx((expected.low[1], expected.high[1]))


def test_copies_within_a_cluster_are_no_evidence() -> None:
    x, y = np.repeat(np.random.default_rng(1).normal(size=(2, 15)), 6, axis=1)
    found = ols(x, y, np.repeat(np.arange(15), 6))
    assert found.error_families is not None
    assert found.standard_error is not None
    assert found.error_families > 2 * found.standard_error
