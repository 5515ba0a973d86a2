"""Standard errors of estimated entropies: they cover rounding for any processor, threads and order of points."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from dsmi_zoo.pipeline.measures import diffusion_spectral_entropy
from dsmi_zoo.pipeline.measures.core.distances import gaussian_kernel, squared_distances
from dsmi_zoo.pipeline.measures.dse.lanczos import _Krylov, _Top, spectral_entropy_by_lanczos
from dsmi_zoo.pipeline.measures.dse.operator import HELD_BYTES, DiffusionOperator

pytestmark = pytest.mark.long

N = 600
SIGMA = 8.0
TOLERANCE = 0.005
MANY, FEW = 12, 6  # draws
ALLOWED = 1e-6  # bits beyond two standard errors


def normal(n, d=64, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def repeated(distinct, n=N):
    return np.repeat(normal(distinct), n // distinct, axis=0)


SAMPLED = {
    "Gaussian": normal(N),
    "ReLU": 0.3 * np.maximum(normal(N), 0),
    "low rank": normal(N, 4) @ normal(4, seed=1) / 8,
    "a third repeated": repeated(200),
}
"""Embeddings whose estimate differs from probe to probe."""

ROUNDED = {
    "2 points repeated": repeated(2),
    "5 points repeated": repeated(5),
    "far points repeated": 100 * repeated(40),
    "far points nearly repeated": 100 * repeated(40) + 1e-6 * normal(N, seed=1),
    "huge points repeated": 1e20 * repeated(40),
    "nearly one point": 1e-3 * normal(N),
    "every point alone": 100 * normal(N),
    "two far clusters of one point": np.repeat([[0.0], [1e4]], N // 2, axis=0) + 1e-3 * normal(N),
}
"""Embeddings for which all probes agree, so that only rounding is left."""


def covered(Z, draws, monkeypatch):
    """Return, for each draw of seed, order of points and precision, whether the error is within two standard errors."""
    monkeypatch.setattr("dsmi_zoo.pipeline.measures.dse.operator._TILE", 256)
    truth = diffusion_spectral_entropy(Z, sigma=SIGMA, method="exact")
    found = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(Z))
        held_bytes, precision = (HELD_BYTES, 0)[seed % 2], (None, "float32", "float64")[seed % 3]
        with threadpool_limits(2 if seed == 0 else 1, user_api="blas"):
            estimate = spectral_entropy_by_lanczos(
                Z[order], SIGMA, 1, TOLERANCE, seed, held_bytes, precision
            )
        found.append(abs(estimate.value - truth) <= 2 * estimate.standard_error + ALLOWED)
    return found


@pytest.mark.parametrize("name", SAMPLED)
def test_two_standard_errors_cover_the_truth_19_times_in_20(name, monkeypatch):
    # With a correct standard error, six of twelve or fewer are covered once in 100,000 times.
    assert sum(covered(SAMPLED[name], MANY, monkeypatch)) > MANY // 2


@pytest.mark.parametrize("name", ROUNDED)
def test_the_standard_error_covers_rounding_every_time(name, monkeypatch):
    assert all(covered(ROUNDED[name], FEW, monkeypatch))


def matrix_of(Z):
    """Return the diffusion matrix without its largest eigenvalue, in float64."""
    kernel = gaussian_kernel(squared_distances(Z), SIGMA)
    roots = np.sqrt(kernel.sum(axis=1))
    top = roots / np.linalg.norm(roots)
    return kernel / roots[:, None] / roots - np.outer(top, top)


@pytest.mark.parametrize("held_bytes", [0, HELD_BYTES])
@pytest.mark.parametrize("name", [*SAMPLED, *ROUNDED])
def test_the_operator_states_how_far_float32_is_off(name, held_bytes):
    Z = (SAMPLED | ROUNDED)[name]
    operator, matrix = DiffusionOperator(Z, SIGMA, "float32", held_bytes), matrix_of(Z)
    X = operator.normalise(normal(N, 40))[:, 1:]
    product = operator.times(X)
    noise = operator.noise(X, product)
    # A sample of 64 rows gives the norm over all 600 rows only within a factor.
    assert (np.linalg.norm(product - matrix @ X, axis=0) <= 4 * noise).all()
    assert abs(operator.trace - np.trace(matrix)) <= 2 * operator.trace_error + 1e-14 * N
    assert abs(operator.squared_norm - np.vdot(matrix, matrix)) <= operator.squared_norm_error(
        noise.max()
    )


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_recurrence_ends_where_the_next_vector_is_rounding(precision):
    Z = 1e20 * repeated(40)
    operator = DiffusionOperator(Z, SIGMA, precision)
    basis = operator.normalise(normal(N, 8))
    no_ritz = _Top.of(operator, basis[:, :1], np.zeros((N, 0)))
    krylov = _Krylov.of(np.column_stack([basis[:, 1:], normal(N, 1, seed=2)]))
    for _ in range(6):
        krylov.step(operator, no_ritz)
    nodes, weights = krylov.rules(radau=False)
    with_zero, weights_with_zero = krylov.rules(radau=True)
    # The sketch lies in the eigenspace of 1, so one step is enough; the last vector has a component of eigenvalue 0.
    assert (np.array(krylov.off_diagonal)[:, :-1] == 0).all()
    assert not krylov.current[:, :-1].any()
    np.testing.assert_allclose((nodes * weights).sum(axis=1)[:-1], 1, rtol=1e-6)
    np.testing.assert_allclose(
        (with_zero * weights_with_zero).sum(axis=1), (nodes * weights).sum(axis=1), rtol=1e-6
    )


def test_where_float32_would_cost_half_the_tolerance_float64_is_used():
    Z, tolerance = repeated(2), 1e-5
    settings = Z, SIGMA, 1, tolerance, 0, HELD_BYTES
    single, double = (
        spectral_entropy_by_lanczos(*settings, precision) for precision in ("float32", "float64")
    )
    assert single.standard_error > tolerance > double.standard_error
    assert spectral_entropy_by_lanczos(*settings) == double
