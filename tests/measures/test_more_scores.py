"""Scores of dimension, direction, Gaussians and clusters, against published algorithms and closed forms."""

import numpy as np
import pytest
from by_name import value_of
from numpy.testing import assert_allclose
from scipy import linalg
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist, pdist
from scipy.stats import ortho_group
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier

from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.dse.mutual_information import diffusion_spectral_mutual_information
from dsmi_zoo.pipeline.measures.scores.dimension import (
    MST_MORE_SUBSETS,
    MST_SHARES,
    MST_SUBSETS,
)
from dsmi_zoo.pipeline.measures.scores.n_leep import log_likelihoods


def example(n=120, d=40, classes=3, signal=1.0, seed=0):
    """Return an embedding with unequal variances and an offset, and labels of classes of unequal size."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(
        np.concatenate([np.repeat(np.arange(classes), 4), rng.integers(classes, size=n)])[:n]
    )
    spread = np.linspace(2, 0.5, d)
    return rng.normal(size=(n, d)) * spread + signal * rng.normal(size=(classes, d))[y] + 0.5, y


# GBC


def bhattacharyya_distance(mean_a, mean_b, covariance_a, covariance_b):
    """Return the distance of two Gaussians with any covariances."""
    middle = (covariance_a + covariance_b) / 2
    apart = (mean_a - mean_b) @ np.linalg.solve(middle, mean_a - mean_b) / 8
    log_determinants = [np.linalg.slogdet(one)[1] for one in (middle, covariance_a, covariance_b)]
    return apart + (log_determinants[0] - (log_determinants[1] + log_determinants[2]) / 2) / 2


@pytest.mark.parametrize("d", [20, 90])
def test_gbc_is_the_overlap_of_spherical_gaussians_in_64_principal_components(d):
    Z, y = example(d=d, signal=0.3)
    components = PCA(min(64, d)).fit_transform(Z)
    k = components.shape[1]
    gaussians = []
    for of_class in range(3):
        rows = components[y == of_class]
        gaussians.append((rows.mean(axis=0), rows.var(axis=0).mean() * np.eye(k)))
    overlap = 0.0
    for a, (mean_a, covariance_a) in enumerate(gaussians):
        for b, (mean_b, covariance_b) in enumerate(gaussians):
            if a != b:
                overlap += np.exp(
                    -bhattacharyya_distance(mean_a, mean_b, covariance_a, covariance_b)
                )
    assert value_of("gbc", Z, y) == pytest.approx(-overlap)


def test_gbc_of_classes_that_coincide_is_minus_the_number_of_ordered_pairs():
    rows = np.random.default_rng(0).normal(size=(10, 4))
    assert value_of("gbc", np.tile(rows, (3, 1)), np.repeat([0, 1, 2], 10)) == pytest.approx(-6)


# N-LEEP


def test_n_leep_is_the_log_expected_empirical_prediction_of_a_mixture():
    Z, y = example(n=200, d=8)
    components = PCA(0.8).fit_transform(Z)
    components /= np.sqrt((components**2).mean())
    mixture = GaussianMixture(15, covariance_type="diag", random_state=3).fit(components)
    shares = mixture.predict_proba(components)
    joint = np.zeros((3, 15))
    for share, label in zip(shares, y, strict=True):
        joint[label] += share / len(y)
    conditional = joint / joint.sum(axis=0)
    expected = [np.log(conditional[label] @ share) for share, label in zip(shares, y, strict=True)]
    found = log_likelihoods(MeasureContext(Z, y, None, None, MeasureSettings(seed=3)))
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert value_of("n_leep", Z, y, seed=3) == pytest.approx(np.mean(expected), rel=1e-5)


def test_n_leep_of_far_clusters_is_0_for_own_labels_and_the_entropy_for_others():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(2), 300)
    Z = rng.normal(size=(600, 5)) + 100 * y[:, None]
    assert -1e-6 < value_of("n_leep", Z, y) <= 0
    assert value_of("n_leep", Z, rng.permutation(y)) == pytest.approx(-np.log(2), abs=0.03)


def test_n_leep_needs_two_points_a_component():
    Z, y = example(n=29)
    with pytest.raises(UndefinedScore, match="29 different points, fewer than 30 for 15 Gaussians"):
        value_of("n_leep", Z, y)


# SFDA


def discriminant_probabilities(X, y, shrinkage):
    """Return probabilities and shrinkage of the paper's regularised discriminant, by its generalised eigenproblem."""
    n, d = X.shape
    means = np.stack([X[y == c].mean(axis=0) for c in range(y.max() + 1)])
    priors = np.bincount(y) / n
    within = sum(prior * np.cov(X[y == c].T, bias=True) for c, prior in enumerate(priors))
    if shrinkage is None:
        shrinkage = max(np.exp(-5 * np.linalg.eigvalsh(within)[-1]), 1e-10)
    shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / d * np.eye(d)
    total = np.cov(X.T, bias=True)
    shrunk_total = (1 - shrinkage) * total + shrinkage * np.trace(total) / d * np.eye(d)
    _, axes = linalg.eigh(shrunk_total - shrunk, shrunk)
    coefficients = means @ axes @ axes.T
    scores = X @ coefficients.T - np.diag(means @ coefficients.T) / 2 + np.log(priors)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True), shrinkage


def sfda_written_out(Z, y):
    """Return SFDA by the authors' two passes, with the exact eigenvalue instead of their power iteration."""
    first, shrinkage = discriminant_probabilities(Z, y, None)
    softened = np.exp(first) / np.exp(first).sum(axis=1, keepdims=True)
    means = np.stack([Z[y == c].mean(axis=0) for c in range(y.max() + 1)])
    mixed = np.empty_like(Z)
    for i, label in enumerate(y):
        others = np.delete(means, label, axis=0).mean(axis=0)
        mixed[i] = softened[i, label] * Z[i] + (1 - softened[i, label]) * others
    second, _ = discriminant_probabilities(mixed, y, shrinkage)
    return second[np.arange(len(y)), y].mean()


@pytest.mark.parametrize(
    ("n", "d", "scale"), [(120, 10, 0.1), (120, 10, 1.0), (30, 50, 0.1), (30, 50, 0.2)]
)
def test_sfda_is_the_authors_algorithm_written_out(n, d, scale):
    Z, y = example(n=n, d=d, signal=0.3)
    assert value_of("sfda", scale * Z, y) == pytest.approx(sfda_written_out(scale * Z, y), rel=1e-6)


def test_the_discriminant_within_sfda_is_that_of_scikit_learn():
    Z, y = example(d=10, signal=0.3)
    ours, _ = discriminant_probabilities(Z, y, 0.0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(Z, y).predict_proba(Z)
    assert_allclose(ours, theirs, rtol=1e-6)


def test_sfda_depends_on_the_scale_of_the_embedding():
    Z, y = example(d=10, signal=0.3)
    assert abs(value_of("sfda", Z, y) - value_of("sfda", 0.1 * Z, y)) > 0.01


# Intrinsic dimension


def test_alpha_req_and_participation_ratio_of_an_exact_power_law():
    rng = np.random.default_rng(0)
    n, d, alpha = 300, 150, 1.3
    raw = rng.normal(size=(n, d))
    orthonormal = np.linalg.qr(raw - raw.mean(axis=0))[0]
    eigenvalues = np.arange(1, d + 1) ** -alpha
    Z = orthonormal * np.sqrt(eigenvalues) @ ortho_group.rvs(d, random_state=0)
    assert value_of("alpha_req", Z) == pytest.approx(alpha)
    assert value_of("participation_ratio", Z) == pytest.approx(
        eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    )


def test_two_nn_is_the_published_fit_written_out():
    Z, _ = example()
    ratios = []
    for row in cdist(Z, Z):
        nearest = np.sort(row)[1:3]
        ratios.append(nearest[1] / nearest[0])
    kept = np.sort(ratios)[: int(0.9 * len(Z))]
    x = np.log(kept)
    y = [-np.log(1 - i / len(Z)) for i in range(1, len(kept) + 1)]
    assert value_of("two_nn_dimension", Z) == pytest.approx(
        np.linalg.lstsq(x[:, None], y, rcond=None)[0][0]
    )


def tree_exponent_by_scipy(Z, subsets, seed):
    distances = cdist(Z, Z)
    rng = np.random.default_rng(seed)
    sizes, lengths = [], []
    for size in np.rint(MST_SHARES * len(Z)).astype(int):
        for _ in range(subsets if size < len(Z) else 1):
            rows = rng.permutation(len(Z))[:size]
            sizes.append(size)
            lengths.append(minimum_spanning_tree(distances[np.ix_(rows, rows)]).sum())
    return np.polyfit(np.log(sizes), np.log(lengths), 1)[0]


def test_mst_dimension_is_the_slope_of_trees_by_scipy():
    Z, _ = example()
    slope = tree_exponent_by_scipy(Z, MST_SUBSETS, seed=5)
    assert value_of("mst_dimension", Z, seed=5) == pytest.approx(1 / (1 - slope))


def test_mst_dimension_takes_more_subsets_where_three_put_the_slope_above_1():
    Z = np.random.default_rng(36).standard_t(3, size=(60, 12))
    assert tree_exponent_by_scipy(Z, MST_SUBSETS, seed=0) > 1
    slope = tree_exponent_by_scipy(Z, MST_MORE_SUBSETS, seed=0)
    assert value_of("mst_dimension", Z, seed=0) == pytest.approx(1 / (1 - slope))


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_intrinsic_dimensions_of_a_cube_are_its_own_in_any_space(dimension):
    rng = np.random.default_rng(0)
    cube = rng.uniform(size=(1200, dimension))
    Z = cube @ ortho_group.rvs(20, random_state=0)[:dimension]
    assert value_of("two_nn_dimension", Z) == pytest.approx(dimension, rel=0.15)
    assert value_of("mst_dimension", Z) == pytest.approx(dimension, rel=0.15)


@pytest.mark.parametrize("score", ["two_nn_dimension", "clid"])
def test_rows_that_are_there_twice_count_once(score):
    Z, _ = example()
    assert value_of(score, np.concatenate([Z, Z])) == pytest.approx(value_of(score, Z))


# CLID


def test_clid_is_online_nearest_neighbours_of_k_means_clusters_times_two_nn():
    Z, _ = example(n=90, d=6)
    unit = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    clusters = KMeans(9, n_init=1, random_state=2).fit_predict(unit)
    order = np.random.default_rng(2).permutation(90)
    right = []
    for place in range(1, 90):
        seen, asked = order[:place], order[place]
        nearest = KNeighborsClassifier(1, metric="cosine").fit(Z[seen], clusters[seen])
        right.append(nearest.predict(Z[[asked]])[0] == clusters[asked])
    assert value_of("clid", Z, seed=2) == pytest.approx(
        np.mean(right) * value_of("two_nn_dimension", Z)
    )


# Directions


def test_cosine_neighbours_are_those_of_scikit_learn():
    Z, y = example(n=60, signal=0.8)
    right = []
    for i in range(len(Z)):
        others = np.arange(len(Z)) != i
        votes = y[others][
            KNeighborsClassifier(10, metric="cosine")
            .fit(Z[others], y[others])
            .kneighbors(Z[[i]])[1][0]
        ]
        counts = np.bincount(votes, minlength=3)
        tied = counts[votes] == counts.max()
        right.append(votes[tied][0] == y[i])
    assert value_of("cosine_neighbour_accuracy", Z, y) == pytest.approx(100 * np.mean(right))


def test_cosine_centres_are_means_of_directions_without_the_image():
    Z, y = example(n=60, signal=0.5)
    images = np.arange(60) // 2
    y = y[::2][images]
    unit = Z - Z.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    right = np.zeros(30)
    for i, image in enumerate(images):
        centres = np.stack([unit[(y == c) & (images != image)].mean(axis=0) for c in range(3)])
        # Other classes lose no row, because the image has none in them.
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        right[image] += (centres @ unit[i]).argmax() == y[i]
    assert value_of("cosine_centre_accuracy", Z, y, image_ids=images) == pytest.approx(
        100 * np.mean(right > 1)
    )


def test_offset_share_is_the_squared_mean_over_the_mean_square():
    Z, _ = example()
    assert value_of("offset_share", Z) == pytest.approx(
        (Z.mean(axis=0) ** 2).sum() / (Z**2).sum(axis=1).mean()
    )
    assert value_of("offset_share", Z - Z.mean(axis=0)) == pytest.approx(0, abs=1e-12)
    assert value_of("offset_share", np.ones((5, 3))) == pytest.approx(1)


def test_angular_information_is_that_of_directions_at_half_their_median_distance():
    Z, y = example()
    unit = Z - Z.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = diffusion_spectral_mutual_information(unit, y, sigma=np.median(pdist(unit)) / 2, t=2)
    assert value_of("dsmi_z_y_angular", Z, y) == pytest.approx(expected)
