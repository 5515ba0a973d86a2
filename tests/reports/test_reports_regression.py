"""Regression of accuracy on a score, against statsmodels and the published formulas."""

import numpy as np
import pytest
import statsmodels.api as sm
from test_reports_statistics import sample

from dsmi_zoo.reports.statistics.regression import ols


def test_regression_is_statsmodels_ols_with_hc3():
    x, y, _ = sample(10)
    fit = sm.OLS(y, sm.add_constant(x)).fit(cov_type="HC3", use_t=True)
    found = ols(x, y)
    assert (found.intercept, found.slope) == pytest.approx(tuple(fit.params))
    assert (found.standard_error, found.p, found.r2) == pytest.approx(
        (fit.bse[1], fit.pvalues[1], fit.rsquared)
    )
    assert found.ci == pytest.approx(tuple(fit.conf_int()[1]))


def test_hc3_is_the_formula_of_mackinnon_and_white():
    x, y, _ = sample(11)
    design = np.column_stack([np.ones_like(x), x])
    bread = np.linalg.inv(design.T @ design)
    residual = y - design @ bread @ design.T @ y
    leverage = np.einsum("ni,ij,nj->n", design, bread, design)
    covariance = bread @ (design.T * (residual / (1 - leverage)) ** 2) @ design @ bread
    np.testing.assert_allclose(ols(x, y).covariance, covariance, rtol=1e-9)


def test_a_slope_that_one_row_fixes_has_no_error():
    found = ols(np.array([0.0, 0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0, 9.0]))
    assert found.slope == pytest.approx(7)
    assert (found.standard_error, found.p, found.ci) == (None, None, None)
    assert "one row alone" in found.reason
