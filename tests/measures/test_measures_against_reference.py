"""The measures against the package `dse-dsmi`: equal within 1e-6 bits on the same float64 values."""

import random
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dsmi_zoo.pipeline.measures import (
    cluster_inputs,
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
    measure,
    shannon_entropy,
    shannon_mutual_information,
)
from dsmi_zoo.pipeline.measures.core.distances import gaussian_kernel, squared_distances
from dsmi_zoo.pipeline.measures.dse.spectrum import diffusion_eigenvalues

with warnings.catch_warnings():  # importing it silences all warnings for good
    from dse_dsmi.diffusion import compute_diffusion_matrix
    from dse_dsmi.dse import diffusion_spectral_entropy as reference_entropy
    from dse_dsmi.dsmi import diffusion_spectral_mutual_information as reference_information

TOLERANCE = 1e-6
SHAPES = [(2, 1), (3, 600), (10, 2), (37, 64), (150, 1), (150, 300), (400, 16)]
SCALES = [1e-2, 0.3, 1.0, 3.0, 1e2]


@pytest.fixture(autouse=True)
def _reference_keeps_to_itself():
    """Undo side effects: the reference seeds the global generator and divides by zero with a warning."""
    state = random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
    random.setstate(state)


def embedding(n, d, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=(n, d))


def unequal_classes(n, seed=0):
    """Return labels of a class of 1, a class of about n/2, and three classes that share the rest."""
    labels = np.random.default_rng(seed).choice([3, 7, 8, 11], size=n, p=[0.5, 0.2, 0.2, 0.1])
    labels[0] = 42
    labels[-1] = 3
    return labels


def reference_dse(Z, sigma, t=1):
    width = np.sqrt(Z.shape[1]) if sigma is None else sigma
    return reference_entropy(Z.astype(np.float64), gaussian_kernel_sigma=width, t=t)


def reference_dsmi(Z, labels, sigma, t=1, repetitions=5, seed=0, **more):
    width = np.sqrt(Z.shape[1]) if sigma is None else sigma
    return reference_information(
        Z.astype(np.float64), labels, gaussian_kernel_sigma=width, t=t, num_repetitions=repetitions, random_seed=seed,
        **more,
    )[0]  # fmt: skip


@pytest.mark.parametrize("sigma", [None, 0.5, 10])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_diffusion_entropy_equals_the_reference(n, d, scale, sigma):
    Z = embedding(n, d, scale)
    for t in (1, 2, 3):
        expected = reference_dse(Z, sigma, t)
        assert diffusion_spectral_entropy(Z, sigma=sigma, t=t) == pytest.approx(
            expected, abs=TOLERANCE
        )


@pytest.mark.parametrize(("n", "d"), [(10, 2), (37, 64), (150, 300)])
def test_diffusion_entropy_at_half_a_step_equals_the_reference(n, d):
    # A square root inflates eigenvalues that are rounding noise, so these spectra have none
    Z = embedding(n, d)
    expected = reference_dse(Z, np.sqrt(d) / 2, t=0.5)
    assert diffusion_spectral_entropy(Z, sigma=np.sqrt(d) / 2, t=0.5) == pytest.approx(
        expected, abs=TOLERANCE
    )


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.longdouble, np.int8, np.uint16, np.int64, bool]
)
def test_any_real_dtype_equals_the_reference_on_float64(dtype):
    Z = np.abs(embedding(60, 12, 3)).astype(dtype)
    labels = unequal_classes(60)
    assert diffusion_spectral_entropy(Z) == pytest.approx(reference_dse(Z, None), abs=TOLERANCE)
    expected = reference_dsmi(Z, labels, None)
    assert diffusion_spectral_mutual_information(Z, labels) == pytest.approx(
        expected, abs=TOLERANCE
    )
    expected = reference_entropy(Z.astype(np.float64), classic_shannon_entropy=True)
    assert shannon_entropy(Z) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("sigma", [None, 0.5, 10])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("n", "d"), SHAPES[2:])
def test_diffusion_information_of_unequal_classes_equals_the_reference(n, d, scale, sigma):
    Z, labels = embedding(n, d, scale), unequal_classes(n)
    expected = reference_dsmi(Z, labels, sigma)
    assert diffusion_spectral_mutual_information(Z, labels, sigma=sigma) == pytest.approx(
        expected, abs=TOLERANCE
    )


@pytest.mark.parametrize("t", [1, 2, 3])
@pytest.mark.parametrize("repetitions", [1, 5, 8])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_diffusion_information_equals_the_reference_for_every_seed(seed, repetitions, t):
    labels = unequal_classes(120, seed)
    Z = embedding(120, 20, seed=seed) + 0.5 * labels[:, None]
    expected = reference_dsmi(Z, labels, None, t, repetitions, seed)
    actual = diffusion_spectral_mutual_information(
        Z, labels[:, None], t=t, repetitions=repetitions, seed=seed
    )
    assert actual == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("bins", [1, 2, 5, 10])
@pytest.mark.parametrize("scale", [1e-2, 1, 1e2])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_classic_entropy_equals_the_reference(n, d, scale, bins):
    Z = embedding(n, d, scale)
    expected = reference_entropy(Z, classic_shannon_entropy=True, num_bins_per_dim=bins)
    assert shannon_entropy(Z, bins=bins) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("bins", [2, 5, 10])
@pytest.mark.parametrize(("n", "d"), [(10, 2), (37, 64), (150, 1), (150, 3), (400, 6)])
def test_classic_information_equals_the_reference(n, d, bins):
    Z, labels = embedding(n, d), unequal_classes(n)
    Z[:, 0] = np.round(Z[:, 0])
    expected = reference_dsmi(Z, labels, None, classic_shannon_entropy=True, num_bins_per_dim=bins)
    assert shannon_mutual_information(Z, labels, bins=bins) == pytest.approx(
        expected, abs=TOLERANCE
    )


def test_a_constant_dimension_is_one_bin_without_a_warning_as_in_the_reference():
    Z = np.column_stack([embedding(50, 2), np.full(50, 3.0)])
    expected = reference_entropy(Z, classic_shannon_entropy=True, num_bins_per_dim=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = shannon_entropy(Z, bins=4)
    assert actual == pytest.approx(expected, abs=TOLERANCE)
    assert actual == pytest.approx(shannon_entropy(Z[:, :2], bins=4), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("offset", [0, 100])
def test_duplicates_and_offsets_equal_the_reference_on_centred_values(offset, scale):
    Z = scale * (embedding(200, 64) + offset)
    Z[50:60] = Z[0]
    # The reference's distances lose digits far from the origin, ours do not, so it gets centred values
    for sigma in (None, 10):
        expected = reference_dse(Z - Z.mean(axis=0), sigma)
        assert diffusion_spectral_entropy(Z, sigma=sigma) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_distances_hold_nine_digits_despite_offset_outlier_and_duplicates(scale):
    Z = scale * (embedding(80, 30) + 100)
    Z[10:20] = Z[5]
    Z[20:30] = Z[5] + scale * 1e-7 * embedding(10, 30, seed=1)
    Z[79] += 1e8 * scale
    exact = ((Z[:, None].astype(np.longdouble) - Z[None].astype(np.longdouble)) ** 2).sum(axis=2)
    squares = squared_distances(Z)
    np.testing.assert_allclose(squares, exact.astype(np.float64), rtol=1e-8)
    assert (squares[10:20, 10:20] == 0).all()
    assert (squares == squares.T).all()


def test_the_spectrum_is_that_of_the_references_matrix():
    Z = embedding(90, 8)
    subset = np.array([3, 80, 4, 5, 41])
    kernel = gaussian_kernel(squared_distances(Z[subset]), 2.0)
    expected = np.linalg.eigvalsh(compute_diffusion_matrix(Z[subset], sigma=2.0))
    np.testing.assert_allclose(diffusion_eigenvalues(kernel), expected, atol=1e-12)


def same_partition(first, second):
    pairs = len(set(zip(first.tolist(), np.ravel(second).tolist(), strict=True)))
    return pairs == len(np.unique(first)) == len(np.unique(second))


@pytest.mark.parametrize("n_clusters", [2, 5, 10])
def test_clusters_of_vectors_are_the_references_partition_and_give_its_information(n_clusters):
    X = load_digits().data[:250]
    Z = embedding(250, 10) + X[:, :10] / 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its graph may be disconnected
        expected, partition = reference_information(
            Z, X, n_clusters=n_clusters, gaussian_kernel_sigma=np.sqrt(10)
        )
    clusters = cluster_inputs(X, n_clusters)
    assert clusters.dtype == np.int64
    assert clusters.shape == (250,)
    assert same_partition(clusters, partition)
    assert diffusion_spectral_mutual_information(Z, clusters) == pytest.approx(
        expected, abs=TOLERANCE
    )
    expected = reference_dsmi(
        Z, X, None, precomputed_clusters=partition, classic_shannon_entropy=True
    )
    assert shannon_mutual_information(Z, clusters) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("n_clusters", [2, 7, 10])
def test_clusters_of_one_column_are_the_references_bins(n_clusters):
    x = embedding(200, 1, seed=3)
    Z = embedding(200, 10) + x
    expected, partition = reference_information(
        Z, x, n_clusters=n_clusters, gaussian_kernel_sigma=np.sqrt(10)
    )
    clusters = cluster_inputs(x, n_clusters)
    assert (clusters + 1 == partition[:, 0]).all()
    assert (cluster_inputs(x[:, 0], n_clusters) == clusters).all()
    assert diffusion_spectral_mutual_information(Z, clusters) == pytest.approx(
        expected, abs=TOLERANCE
    )


@pytest.mark.parametrize("scale", [1, 1 / 8])
def test_every_measure_of_real_digits_equals_the_reference(scale):
    digits = load_digits()
    Z, labels = digits.data[:200] * scale, digits.target[:200]
    clusters = cluster_inputs(Z, 10)
    values = measure(Z, labels, input_clusters=clusters)
    classic = {"classic_shannon_entropy": True}
    expected = {
        "dse_z": reference_dse(Z, None),
        "dsmi_z_y": reference_dsmi(Z, labels, None),
        "dsmi_z_x": reference_dsmi(Z, clusters, None),
        "cse_z": reference_entropy(Z, **classic),
        "csmi_z_y": reference_dsmi(Z, labels, None, **classic),
        "csmi_z_x": reference_dsmi(Z, clusters, None, **classic),
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=TOLERANCE)
