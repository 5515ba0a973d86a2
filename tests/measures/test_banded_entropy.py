"""The entropy of a large spectrum from a band matrix and determinants, against that from all eigenvalues."""

from threading import Barrier

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eig_banded
from threadpoolctl import threadpool_info, threadpool_limits

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.core.distances import Points, gaussian_kernel, squared_distances
from dsmi_zoo.pipeline.measures.core.threads import in_threads, one_blas_thread
from dsmi_zoo.pipeline.measures.dse import banded as module
from dsmi_zoo.pipeline.measures.dse.banded import WIDTH, banded, sum_of_x_log_x
from dsmi_zoo.pipeline.measures.dse.spectrum import (
    BAND_FROM,
    _entropy_by_band,
    diffusion_eigenvalues,
    kernel_entropy,
    spectrum_entropy,
)


def positive(n: int, rank: int, seed: int = 0) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(n, rank))
    return factor @ factor.T / n


@pytest.mark.parametrize("n", [1, 2, WIDTH, WIDTH + 1, 2 * WIDTH - 1, 5 * WIDTH, 333])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_band_has_the_eigenvalues_of_its_matrix(n: int, kind: type) -> None:
    matrix = positive(n, n // 2 + 1)
    band = banded(matrix.astype(kind))[: min(n, WIDTH + 1)]
    found = eig_banded(band, lower=True, eigvals_only=True)
    rounding = 10 * np.finfo(kind).eps * np.linalg.norm(matrix)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(matrix), atol=rounding)


def test_a_matrix_that_is_a_band_already_and_one_of_zeros_stay_what_they_are() -> None:
    diagonal = np.diag(np.arange(1.0, 200))
    np.testing.assert_array_equal(banded(diagonal)[0], np.arange(1.0, 200))
    assert not banded(np.zeros((200, 200))).any()
    assert sum_of_x_log_x(np.zeros((65, 200)), 0.0, 0.0) == 0


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_band_is_the_same_to_the_last_bit_from_one_thread_and_from_several(kind: type) -> None:
    matrix = positive(700, 400).astype(kind)
    with one_blas_thread():
        of_one = in_threads(lambda _: banded(matrix), [0, 1])  # which start no further threads
    with threadpool_limits(4, "blas"), one_blas_thread():
        of_four = banded(matrix)
    np.testing.assert_array_equal(of_one[0], of_four)
    np.testing.assert_array_equal(of_one[1], of_four)


@pytest.mark.parametrize("n", [1400, 2200])  # classes by all eigenvalues, and by a band
def test_dsmi_of_two_classes_is_the_same_from_one_thread_and_from_two(
    n: int,
) -> None:
    labels = np.arange(n) % 2
    points = Points(np.random.default_rng(0).normal(size=(n, 8)) + labels[:, None])
    assert points.squares.shape == (n, n)  # computed here, by one number of threads
    values = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            values.append(measure(points, labels, scores="dsmi_z_y"))
    assert values[0] == values[1]


def test_threads_of_ours_work_side_by_side_while_blas_has_one_thread() -> None:
    meeting = Barrier(3, timeout=60)
    with threadpool_limits(3, "blas"), one_blas_thread():
        in_threads(
            lambda _: meeting.wait(), range(3)
        )  # a thread that waits alone breaks the barrier


def test_neither_blas_has_several_threads_while_a_band_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = set()
    reflected = module._reflected

    def seen(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counts.update(
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        )
        return reflected(columns)

    monkeypatch.setattr(module, "_reflected", seen)
    Z = np.random.default_rng(0).normal(size=(2100, 3))
    kernel = gaussian_kernel(squared_distances(Z), 2.0)
    with threadpool_limits(4, "blas"):
        kernel_entropy(kernel, 1, precision="float32")
    assert counts == {1}


@given(st.lists(st.floats(1e-12, 1) | st.just(0.0), min_size=1, max_size=80), st.floats(1e-8, 1e8))
@settings(deadline=None, max_examples=60)
def test_the_sum_of_x_log_x_is_that_of_the_eigenvalues(values: list[float], unit: float) -> None:
    x = np.array(values) * unit
    found = sum_of_x_log_x(x[None, :], float(x.sum()), float((x**2).sum()))
    expected = float(np.sum(x * np.log(np.where(x > 0, x, 1))))
    assert found == pytest.approx(expected, abs=1e-8 * x.sum() + 1e-11 * len(x) * x.max())


@pytest.mark.parametrize(("precision", "most"), [("float32", 3e-6), ("float64", 1e-8)])
@pytest.mark.parametrize("kind", ["wide", "rectified", "low rank", "repeated"])
@pytest.mark.parametrize("scale", [0.02, 0.5, 1, 2, 30])
def test_the_entropy_is_that_of_all_eigenvalues(
    kind: str, scale: float, precision: str, most: float
) -> None:
    generator = np.random.default_rng(3)
    n, d = 300, 48
    Z = generator.normal(size=(n, d))
    Z = {
        "wide": Z,
        "rectified": np.maximum(Z, 0),
        "low rank": Z[:, :4] @ generator.normal(size=(4, d)) / 2,
        "repeated": Z[np.arange(n) % 90],
    }[kind]
    kernel = gaussian_kernel(squared_distances(scale * Z), np.sqrt(d))
    expected = float(spectrum_entropy(diffusion_eigenvalues(kernel.copy())[None], 1)[0])
    assert _entropy_by_band(kernel, precision) == pytest.approx(expected, abs=most)


def test_points_that_are_all_alike_have_no_entropy() -> None:
    assert _entropy_by_band(np.ones((300, 300)), "float64") == pytest.approx(0, abs=1e-12)


def test_only_a_large_spectrum_at_time_one_takes_a_band() -> None:
    Z = np.random.default_rng(0).normal(size=(BAND_FROM + 1, 3))
    kernel = gaussian_kernel(squared_distances(Z), 2.0)
    by_band = _entropy_by_band(kernel.copy(), "float32")
    assert kernel_entropy(kernel.copy(), 1, precision="float32") == by_band
    of_few = gaussian_kernel(squared_distances(Z[:300]), 2.0)
    eigenvalues = diffusion_eigenvalues(of_few.copy())
    assert kernel_entropy(of_few, 1) == float(spectrum_entropy(eigenvalues[None], 1)[0])
