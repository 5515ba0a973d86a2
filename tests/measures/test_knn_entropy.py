"""DSE and DSMI on a graph of nearest neighbours, against the algorithm of `manylatents` written out.

`manylatents` 0.1.8 itself cannot be a test dependency: it needs SciPy below 1.15. Its DSE was compared once by hand and
differed by less than 2e-15 bits in float64.
"""

import random

import numpy as np
import pytest
from by_name import value_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.core import distances as distances_module
from dsmi_zoo.pipeline.measures.core import exact_or_estimated as estimate_module
from dsmi_zoo.pipeline.measures.dse.knn import (
    KnnOperator,
    different_neighbours,
    nearest_neighbours,
    sparse_matrix,
)

K, T = 15, 3


def entropy_of(Z):
    """Return DSE as in ``manylatents.metrics.diffusion_spectral_entropy``, computed by loops."""
    n = len(Z)
    k = min(K, n - 1)
    distances = np.linalg.norm(Z[:, None] - Z[None], axis=2)
    nearest = [
        [j for j in np.argsort(row, kind="stable") if j != i][:k] for i, row in enumerate(distances)
    ]
    width = [distances[i, nearest[i][-1]] for i in range(n)]
    kernel = np.eye(n)
    for i in range(n):
        for j in nearest[i]:
            kernel[i, j] = np.exp(-(distances[i, j] ** 2) / (width[i] * width[j]))
    kernel = np.maximum(kernel, kernel.T)
    kernel = kernel / np.outer(kernel.sum(axis=1), kernel.sum(axis=1))
    roots = np.sqrt(kernel.sum(axis=1))
    weights = np.abs(np.linalg.eigvalsh(kernel / np.outer(roots, roots))) ** T
    p = weights / weights.sum() + np.finfo(float).eps
    return -np.sum(p * np.log2(p))


def example(n=120, d=8, classes=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    Z = (
        np.maximum(generator.normal(size=(n, d)), 0)
        + 0.5 * generator.normal(size=(classes, d))[labels]
    )
    return Z, labels


@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 2), (15, 3), (17, 4), (120, 8), (600, 40)])
def test_dse_is_that_of_the_algorithm_written_out(n, d):
    Z, _ = example(n, d)
    found = value_of("dse_z_knn", Z)
    assert found == pytest.approx(entropy_of(Z), abs=1e-9)
    assert 0 < found < np.log2(n)


def test_dsmi_is_the_papers_difference_of_such_entropies():
    Z, labels = example()
    total = 0.0
    for of_class in range(4):
        members = np.flatnonzero(labels == of_class)
        source = random.Random(3)
        drawn = [source.sample(range(len(Z)), len(members)) for _ in range(5)]
        total += (np.mean([entropy_of(Z[rows]) for rows in drawn]) - entropy_of(Z[members])) / 4
    assert value_of("dsmi_z_y_knn", Z, labels, seed=3) == pytest.approx(total, abs=1e-9)
    assert abs(total) > 0.02


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(-2, 2), st.floats(-50, 50))
def test_neither_scale_nor_offset_nor_order_of_dimensions_matters(seed, power, offset):
    Z, labels = example(seed=seed)
    moved = (10**power * (Z + offset))[:, ::-1]
    for name in ("dse_z_knn", "dsmi_z_y_knn"):
        assert value_of(name, moved, labels) == pytest.approx(value_of(name, Z, labels), abs=1e-6)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter_to_dse_by_neighbours(seed):
    Z, _ = example(seed=seed)
    order = np.random.default_rng(seed).permutation(len(Z))
    assert value_of("dse_z_knn", Z[order]) == pytest.approx(value_of("dse_z_knn", Z), abs=1e-9)


def test_copies_count_once_however_many_there_are():
    Z, _ = example()
    expected = value_of("dse_z_knn", Z)
    for copies in (2, 40):
        doubled = np.concatenate([Z, np.repeat(Z[:5], copies, axis=0) * (1 + 1e-9)])
        assert value_of("dse_z_knn", doubled) == pytest.approx(expected, abs=1e-6)


def test_repeats_of_an_image_are_not_its_neighbours():
    Z, labels = example()
    generator = np.random.default_rng(1)
    crops = np.repeat(Z, 3, axis=0) + 1e-3 * generator.normal(size=(360, 8))
    crops[::3] = Z  # the first row of each image
    of_crops = {"image_ids": np.repeat(np.arange(120), 3)}
    for name in ("dse_z_knn", "dsmi_z_y_knn"):
        repeated = value_of(name, crops, np.repeat(labels, 3), **of_crops)
        assert repeated == pytest.approx(value_of(name, Z, labels), abs=1e-9)


def test_collapsed_classes_have_entropy_0_and_their_number_is_left():
    Z = np.repeat(np.eye(8), 30, axis=0)
    labels = np.repeat(np.arange(8), 30)
    assert value_of("dse_z_knn", np.ones((50, 3))) == pytest.approx(0, abs=1e-12)
    # Eight points at equal distances: exp(-1) off the diagonal.
    kernel = np.full((8, 8), np.exp(-1)) + (1 - np.exp(-1)) * np.eye(8)
    weights = np.linalg.eigvalsh(kernel / kernel.sum(axis=0)) ** T
    p = weights / weights.sum()
    expected = -np.sum(p * np.log2(p))
    assert value_of("dse_z_knn", Z) == pytest.approx(expected, abs=1e-9)
    assert value_of("dsmi_z_y_knn", Z, labels) == pytest.approx(expected, abs=0.1)


def test_two_far_groups_have_one_bit_more_than_one():
    Z, _ = example(100)
    apart = np.concatenate([Z, Z + 1000])
    assert value_of("dse_z_knn", apart) == pytest.approx(value_of("dse_z_knn", Z) + 1, abs=1e-9)


def test_large_sets_are_estimated_within_the_stated_error(monkeypatch):
    Z, labels = example(900, 20, classes=1 + 1)
    exact = measure(Z, labels, scores=("dse_z_knn", "dsmi_z_y_knn"), precision="float64")
    for name, value in exact.items():
        assert value_of(name, Z, labels, precision="float32") == pytest.approx(value, abs=1e-5)
    for module in (estimate_module, distances_module):
        monkeypatch.setattr(module, "EXACT_UP_TO", 400)
    monkeypatch.setattr(estimate_module, "ESTIMATED_FROM", 400)
    estimated = measure(Z, labels, scores=("dse_z_knn", "dsmi_z_y_knn"))
    for name, value in exact.items():
        assert estimated[name] != value
        assert estimated[name] == pytest.approx(value, abs=0.02)  # four standard errors


def test_the_neighbours_are_those_of_all_pairs_of_distances(monkeypatch):
    monkeypatch.setattr("dsmi_zoo.pipeline.measures.dse.knn.ROWS", 64)
    monkeypatch.setattr("dsmi_zoo.pipeline.measures.dse.knn.COLUMNS", 50)
    for n, k in ((300, 15), (60, 59), (5, 2)):
        Z = np.random.default_rng(n).normal(size=(n, 6)) + 3
        squares, numbers = nearest_neighbours(Z, k)
        distances = ((Z[:, None] - Z[None]) ** 2).sum(axis=2)
        np.fill_diagonal(distances, np.inf)
        assert (numbers == np.argsort(distances, axis=1)[:, :k]).all()
        np.testing.assert_allclose(squares, np.sort(distances, axis=1)[:, :k], rtol=1e-9)


def test_the_sparse_operator_is_the_square_of_the_dense_matrix():
    Z, _ = example(200)
    matrix, roots = sparse_matrix(Z, K, 0.0)
    dense = matrix.toarray()
    np.testing.assert_allclose(dense @ roots, roots, rtol=1e-12)
    operator = KnnOperator(matrix, roots)
    values = np.linalg.eigvalsh(dense)[:-1]
    assert values.min() < -0.01  # negative, so that the square is needed
    assert operator.trace == pytest.approx(np.sum(values**2))
    assert operator.squared_norm == pytest.approx(np.sum(values**4))


def test_points_alike_are_left_out_before_their_neighbours_are_found():
    Z = np.random.default_rng(0).normal(size=(80, 4))
    Z[40:60] = Z[3]
    Z[60:70] = Z[50] * (1 + 1e-9)
    squares, numbers, kept = different_neighbours(Z, 5, 1e-12)
    assert (kept == np.delete(np.arange(80), range(40, 70))).all()
    expected = nearest_neighbours(Z[kept], 5)
    assert (squares == expected[0]).all()
    assert (numbers == expected[1]).all()


def test_the_stated_error_is_the_spread_over_fresh_images():
    names = ("dsmi_z_y_knn", "dsmi_z_y_knn_se", "dsmi_z_y_net", "dsmi_z_y_net_se")
    centres = np.random.default_rng(0).normal(size=(4, 8))
    labels = np.arange(160) % 4
    drawn = []
    for seed in range(16):
        Z = centres[labels] + 2 * np.random.default_rng([1, seed]).normal(size=(160, 8))
        drawn.append(measure(Z, labels, scores=names, seed=seed))
    for value, error in (names[:2], names[2:]):
        spread = np.std([one[value] for one in drawn], ddof=1)
        assert 0.6 < np.median([one[error] for one in drawn]) / spread < 1.7


def test_one_repetition_has_no_error_by_neighbours_and_says_why():
    values = measure(*example(), scores=("dsmi_z_y_knn", "dsmi_z_y_knn_se"), repetitions=1)
    assert "dsmi_z_y_knn" in values
    assert values["undefined_scores"].startswith("dsmi_z_y_knn_se: one repetition has no spread")
