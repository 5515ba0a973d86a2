"""PACTran-Gauss against scikit-learn's logistic regression and a Hessian by finite differences."""

import numpy as np
import pytest
from by_name import value_of
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from test_more_scores import example

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore


def mean_loss(theta: np.ndarray, X: np.ndarray, y: np.ndarray) -> float:
    """Return the mean cross-entropy of a linear classifier; ``theta`` holds its weights, then its intercepts."""
    weights = theta.reshape(X.shape[1] + 1, -1)
    logits = X @ weights[:-1] + weights[-1]
    return float(np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]))


def trace_by_differences(theta: np.ndarray, X: np.ndarray, y: np.ndarray) -> float:
    step, total = 1e-4, 0.0
    for place in range(len(theta)):
        moved = np.zeros_like(theta)
        moved[place] = step
        around = mean_loss(theta + moved, X, y) + mean_loss(theta - moved, X, y)
        total += (around - 2 * mean_loss(theta, X, y)) / step**2
    return total


def bound(Z: np.ndarray, y: np.ndarray) -> float:
    """Return the bound for lambda = D n / 10 and sigma_0^2 = 100 / D, computed term by term."""
    (n, d), k = Z.shape, y.max() + 1
    lam, variance = d * n / 10, 100 / d
    X = Z - Z.mean(axis=0)
    # scikit-learn's C weights the summed loss: lambda sigma_0^2 / n.
    fitted = LogisticRegression(C=lam * variance / n, tol=1e-9, max_iter=100_000).fit(X, y)
    weights, intercepts = fitted.coef_, fitted.intercept_
    if k == 2:  # scikit-learn fits one column, which gives the same probabilities
        weights = np.concatenate([-weights, weights]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    theta = np.concatenate([weights.T, intercepts[None]]).reshape(-1)
    least = mean_loss(theta, X, y) + np.sum(weights**2) / (2 * lam * variance)
    trace = trace_by_differences(theta, X, y)
    return float(least + k * d / (2 * lam) * np.log(1 + lam * variance / (k * d) * trace))


@pytest.mark.parametrize(("n", "d", "scale"), [(90, 6, 1.0), (30, 45, 0.3), (60, 5, 20.0)])
def test_pactran_is_the_bound_at_the_least_loss_of_logistic_regression(
    n: int, d: int, scale: float
) -> None:
    Z, y = example(n=n, d=d)
    assert value_of("pactran_gauss", scale * Z, y) == pytest.approx(bound(scale * Z, y), rel=1e-4)


def test_pactran_is_lower_for_clearer_classes_and_the_same_in_another_basis() -> None:
    Z, y = example(n=150, d=10, signal=0.3)
    clear, _ = example(n=150, d=10, signal=3)
    value = value_of("pactran_gauss", Z, y)
    assert value_of("pactran_gauss", clear, y) < value
    turned = Z @ np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0] + 5
    assert value_of("pactran_gauss", turned, 7 - y) == pytest.approx(value, rel=1e-4)
    assert value_of("pactran_gauss", Z / 10, y) != pytest.approx(value, rel=0.1)


def test_its_error_is_the_jackknife_that_leaves_out_tenths_and_counts_images() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(80) % 4
    centres = rng.normal(size=(4, 12))
    samples = [centres[y] + rng.normal(size=(80, 12)) for _ in range(20)]
    both = [measure(Z, y, scores=["pactran_gauss", "pactran_gauss_se"]) for Z in samples]
    values, errors = np.array([list(one.values()) for one in both]).T
    assert 0.6 < np.median(errors) / values.std(ddof=1) < 1.6
    # Repeats are left out together.
    Z, twice = np.repeat(samples[0], 2, axis=0), np.repeat(y, 2)
    copies = value_of("pactran_gauss_se", Z, twice, image_ids=np.arange(160) // 2)
    assert value_of("pactran_gauss_se", Z, twice) < 0.9 * copies
    with pytest.raises(UndefinedScore, match="a class has one image, which cannot be left out"):
        value_of("pactran_gauss_se", Z[:60], np.append(9, y[1:60]))
    with pytest.raises(UndefinedScore, match="it is the same whichever tenth is left out"):
        value_of("pactran_gauss_se", np.eye(4)[y], y)


def test_an_embedding_of_an_absurd_scale_has_no_pactran_but_a_reason() -> None:
    Z, y = example(n=60, signal=5)
    with pytest.raises(UndefinedScore, match="logistic regression has not converged"):
        value_of("pactran_gauss", 1e20 * Z, y)
    with pytest.raises(UndefinedScore, match="all rows are the same"):
        value_of("pactran_gauss", np.ones((60, 3)), y)
