"""The estimators that DSMI is compared with, against closed forms; and simulated data with a known truth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from sklearn.feature_selection import mutual_info_classif

from dsmi_zoo.pipeline.measures import diffusion_spectral_entropy
from dsmi_zoo.pipeline.studies.simulation import (
    _counts_within,
    _for_network,
    blobs,
    branching_tree,
    corrupted_labels,
    ksg_label_information,
    label_information,
    mine_mutual_information,
)

pytestmark = pytest.mark.long


def gaussian_pair(rho: float, n: int = 1000, d: int = 2) -> tuple[np.ndarray, np.ndarray, float]:
    """Return correlated normal variables and their mutual information, -d/2 log2(1 - rho^2) bits."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    return x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(n, d)), -d / 2 * np.log2(1 - rho**2)


@pytest.mark.parametrize(("rho", "tolerance"), [(0.0, 0.15), (0.8, 0.15)])
def test_mine_meets_the_closed_form_of_gaussians_and_leaves_torchs_state_alone(
    rho: float, tolerance: float
) -> None:
    x, y, truth = gaussian_pair(rho)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    found = mine_mutual_information(x, y, steps=500)
    assert found == pytest.approx(truth, abs=tolerance)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_mine_is_fed_of_many_columns_has_the_distances_of_all_of_them() -> None:
    Z = np.random.default_rng(0).normal(size=(40, 500))
    standard = (Z - Z.mean(axis=0)) / Z.std(axis=0)
    fed = _for_network(Z)
    assert fed.shape == (40, 39)
    np.testing.assert_allclose(pdist(fed), pdist(standard) * np.sqrt(39 / 500))
    np.testing.assert_allclose(_for_network(Z[:, :3]), standard[:, :3])


def test_ksg_of_labels_is_scikit_learns_in_one_column() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 100)
    z = rng.normal(size=(400, 1)) + labels[:, None]
    theirs = mutual_info_classif(z, labels, n_neighbors=3, random_state=0)[0] / np.log(2)
    # scikit-learn adds noise of 1e-10 to break ties, but there are no ties here.
    assert ksg_label_information(z, labels) == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("d", [2, 40])
def test_ksg_of_labels_is_their_entropy_if_classes_are_apart_and_0_if_not(d: int) -> None:
    z, labels = blobs(400, 4, d, 0.01, seed=0)
    assert ksg_label_information(z, labels) == pytest.approx(2, abs=0.05)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert ksg_label_information(
        np.random.default_rng(1).normal(size=(400, d)), shuffled
    ) == pytest.approx(0, abs=0.1)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_neighbours_are_counted_alike_with_trees_and_without(seed: int) -> None:
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(60, 10))
    distances = np.sort(np.linalg.norm(Z[:, None] - Z[None], axis=2), axis=1)
    radius = distances[:, 4] * rng.uniform(0.5, 1.5)
    # The same distances, but too many columns for trees.
    padded = np.hstack([Z, np.zeros((60, 10))])
    np.testing.assert_array_equal(_counts_within(Z, radius), _counts_within(padded, radius))


@given(st.floats(0, 1), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_corrupting_labels_keeps_class_sizes_and_never_adds_information(
    share: float, seed: int
) -> None:
    labels = np.arange(200) * 10 // 200
    corrupted = corrupted_labels(labels, share, seed)
    np.testing.assert_array_equal(np.bincount(corrupted), np.bincount(labels))
    assert (corrupted != labels).mean() <= share + 0.005
    assert 0 <= label_information(labels, corrupted) <= np.log2(10) + 1e-12


def test_the_truth_falls_from_the_labels_entropy_as_they_are_corrupted() -> None:
    labels = np.arange(1000) * 10 // 1000
    truths = [
        label_information(labels, corrupted_labels(labels, share, 0))
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert truths[0] == pytest.approx(np.log2(10))
    assert truths == sorted(truths, reverse=True)
    assert truths[-1] < 0.1


@pytest.mark.parametrize("d", [20, 500])
def test_more_branches_and_more_clusters_have_more_diffusion_entropy(d: int) -> None:
    trees = [diffusion_spectral_entropy(branching_tree(150, k, d, 0.1, seed=1)) for k in (2, 8, 32)]
    clusters = [diffusion_spectral_entropy(blobs(150, k, d, 0.1, seed=1)[0]) for k in (2, 8, 32)]
    assert trees == sorted(trees)
    assert clusters == sorted(clusters)


def test_simulated_data_are_seeded_and_of_the_stated_scale() -> None:
    np.testing.assert_array_equal(
        branching_tree(50, 4, 9, 0.1, 3), branching_tree(50, 4, 9, 0.1, 3)
    )
    z, labels = blobs(4000, 2, 50, 0.25, 0)
    for label in (0, 1):
        assert z[labels == label].std(axis=0).mean() == pytest.approx(0.25, rel=0.05)
