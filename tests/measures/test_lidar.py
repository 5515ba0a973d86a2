"""LiDAR against the paper's equations, written out, and in closed form."""

import numpy as np
import pytest
from by_name import value_of
from scipy.linalg import fractional_matrix_power

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore


def repeated(images: int = 40, repeats: int = 3, d: int = 6, spread: float = 0.5, seed: int = 0):
    """Return rows [images * repeats, d] around the centre of each image, and the image of each row."""
    generator = np.random.default_rng(seed)
    of_row = np.repeat(np.arange(images), repeats)
    centres = generator.normal(size=(images, d)) * np.linspace(2, 0.2, d) + 3
    return centres[of_row] + spread * generator.normal(size=(len(of_row), d)), of_row


def written_out(Z: np.ndarray, n: int, q: int) -> float:
    """Return LiDAR by equations 1 to 4 of the paper, for n images with q rows each."""
    e = Z.reshape(n, q, -1)
    mu_x = e.mean(axis=1)
    mu = mu_x.mean(axis=0)
    d = len(mu)
    sigma_b, sigma_w = np.zeros((d, d)), np.zeros((d, d))
    for x in range(n):
        sigma_b += np.outer(mu_x[x] - mu, mu_x[x] - mu) / n
        for y in range(q):
            sigma_w += np.outer(e[x, y] - mu_x[x], e[x, y] - mu_x[x]) / (n * q)
    sigma_w += 1e-4 * np.eye(d)
    white = fractional_matrix_power(sigma_w, -0.5)
    eigenvalues = np.linalg.eigvalsh(white @ sigma_b @ white)
    p = eigenvalues / np.abs(eigenvalues).sum() + 1e-7
    return float(np.exp(-np.sum(p * np.log(p))))


@pytest.mark.parametrize(("images", "d", "scale"), [(40, 6, 1), (40, 6, 0.003), (12, 50, 1)])
def test_lidar_is_the_papers_equations_written_out(images: int, d: int, scale: float) -> None:
    Z, of_row = repeated(images, d=d)
    labels = of_row % 2
    found = value_of("lidar", scale * Z, labels, image_ids=of_row)
    assert found == pytest.approx(written_out(scale * Z, images, 3), rel=1e-5)


def test_lidar_depends_on_no_label_and_on_no_order_of_rows() -> None:
    Z, of_row = repeated()
    order = np.random.default_rng(0).permutation(len(Z))
    one = value_of("lidar", Z, of_row % 2, image_ids=of_row)
    other = value_of("lidar", Z[order], of_row[order] // 20, image_ids=of_row[order])
    assert other == pytest.approx(one)


def test_directions_in_which_only_repeats_differ_do_not_count() -> None:
    generator = np.random.default_rng(0)
    of_row = np.repeat(np.arange(300), 4)
    between = generator.normal(size=(300, 3))[of_row]
    within = generator.normal(size=(1200, 3))
    Z = np.concatenate([between + 0.01 * within, 5 * within], axis=1)
    assert value_of("lidar", Z, of_row % 2, image_ids=of_row) == pytest.approx(3, abs=0.05)


def test_without_repeats_of_each_image_lidar_says_why() -> None:
    Z, of_row = repeated()
    with pytest.raises(UndefinedScore, match="120 of 120 images have one row, not repeats"):
        value_of("lidar", Z, of_row % 2)
    mixed = np.where(np.arange(len(Z)) == 0, 999, of_row)
    with pytest.raises(UndefinedScore, match="1 of 41 images have one row"):
        value_of("lidar", Z, of_row % 2, image_ids=mixed)


def test_lidar_has_a_standard_error_over_images() -> None:
    values, errors = [], []
    for seed in range(12):
        Z, of_row = repeated(60, seed=seed)
        both = measure(Z, of_row % 2, image_ids=of_row, scores=("lidar", "lidar_se"))
        values.append(both["lidar"])
        errors.append(both["lidar_se"])
    assert 0.5 < np.median(errors) / np.std(values, ddof=1) < 2
