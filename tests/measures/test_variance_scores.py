"""NESum, matrix-based entropy and class-distance normalised variance against their definitions, written out."""

from itertools import combinations

import numpy as np
import pytest
from by_name import value_of
from test_more_scores import example

from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore


@pytest.mark.parametrize(("n", "d"), [(120, 40), (30, 50)])
def test_nesum_is_the_sum_of_the_covariances_eigenvalues_over_the_largest(n: int, d: int) -> None:
    Z, _ = example(n=n, d=d)
    eigenvalues = np.linalg.eigvalsh(np.cov(Z.T))
    assert value_of("nesum", Z) == pytest.approx(eigenvalues.sum() / eigenvalues[-1])


@pytest.mark.parametrize(("n", "d"), [(120, 40), (30, 50)])
def test_matrix_entropy_is_renyis_of_the_normalised_gram_matrix(n: int, d: int) -> None:
    Z, _ = example(n=n, d=d)
    gram = Z @ Z.T
    eigenvalues = np.linalg.eigvalsh(gram / np.trace(gram))
    order = 2
    renyi = np.log2(np.sum(eigenvalues**order)) / (1 - order)
    assert value_of("matrix_entropy", Z) == pytest.approx(renyi)


def test_equal_orthogonal_rows_have_as_many_bits_and_directions() -> None:
    assert value_of("matrix_entropy", np.eye(16)) == pytest.approx(4)
    assert value_of("matrix_entropy", np.ones((9, 3))) == pytest.approx(0, abs=1e-12)
    assert value_of("nesum", np.eye(16)) == pytest.approx(15)
    assert value_of("nesum", np.arange(9.0)[:, None] * np.ones(3)) == pytest.approx(1)


def test_cdnv_is_the_mean_of_the_papers_ratio_over_pairs_of_classes() -> None:
    Z, y = example(classes=5)
    ratios = []
    for a, b in combinations(range(5), 2):
        of_a, of_b = Z[y == a], Z[y == b]
        variances = [
            np.mean(np.linalg.norm(rows - rows.mean(axis=0), axis=1) ** 2) for rows in (of_a, of_b)
        ]
        apart = np.linalg.norm(of_a.mean(axis=0) - of_b.mean(axis=0))
        ratios.append(sum(variances) / (2 * apart**2))
    assert value_of("cdnv", Z, y) == pytest.approx(np.mean(ratios))
    assert value_of("cdnv", np.eye(3)[y % 3], y % 3) == pytest.approx(0, abs=1e-12)


def test_where_they_are_undefined_they_say_why() -> None:
    with pytest.raises(UndefinedScore, match="all rows are zero"):
        value_of("matrix_entropy", np.zeros((20, 3)))
    with pytest.raises(UndefinedScore, match="all rows are the same"):
        value_of("nesum", np.ones((20, 3)))
    mirrored = np.repeat(np.random.default_rng(0).normal(size=(10, 3)), 2, axis=0)
    mirrored[1::2] *= -1
    labels = np.repeat([0, 1], 10)
    with pytest.raises(UndefinedScore, match="the means of two classes coincide"):
        value_of("cdnv", mirrored, labels)
