"""Leave-one-image-out accuracies of nearest centre, neighbours and ridge probe, against scikit-learn's."""

import numpy as np
import pytest
from by_name import value_of
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from test_transferability import ACCURACIES, SHAPES, example, transferability, with_repeats

from dsmi_zoo.pipeline.measures.core.checks import order_of_appearance
from dsmi_zoo.pipeline.measures.core.distances import Points
from dsmi_zoo.pipeline.measures.core.hits import unpack_hits
from dsmi_zoo.pipeline.measures.scores.neighbours import neighbour_hits
from dsmi_zoo.pipeline.measures.scores.probe import PENALTIES

pytestmark = pytest.mark.long


def by_image(right, images):
    """Return whether most repeats of each image are right, in the order in which the images appear."""
    return np.array(
        [np.mean(right[images == image]) > 0.5 for image in dict.fromkeys(images.tolist())]
    )


def share_of_neighbours(Z, y, images=None, k=10):
    """Return the accuracy of k nearest neighbours in percent."""
    classes = order_of_appearance(np.asarray(y))
    images = np.arange(len(classes)) if images is None else order_of_appearance(np.asarray(images))
    return 100 * neighbour_hits(Points(np.asarray(Z, float)), classes, images, k).mean()


def hits_of_probe(Z, y, **images):
    """Return whether the probe classifies each image correctly."""
    return unpack_hits(value_of("probe_hits", Z, y, **images))


def left_out(classifier, Z, y, images):
    """Return the predictions for each image by a classifier that is refitted without it."""
    return cross_val_predict(classifier, Z, y, groups=images, cv=LeaveOneGroupOut())


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_centre_and_neighbour_accuracy_are_scikit_learns_without_each_image(n, d):
    Z, y = example(n, d, classes=2, signal=3 / d)
    images = np.arange(n)
    assert value_of("centre_accuracy", Z, y) == 100 * np.mean(
        left_out(NearestCentroid(), Z, y, images) == y
    )
    neighbours = left_out(KNeighborsClassifier(7), Z, y, images)
    assert share_of_neighbours(Z, y, k=7) == pytest.approx(100 * np.mean(neighbours == y))
    assert 55 < value_of("centre_accuracy", Z, y) < 100


def test_centre_and_neighbour_accuracy_leave_out_all_repeats_of_an_image():
    Z, y, images = with_repeats()
    right = by_image(left_out(NearestCentroid(), Z, y, images) == y, images)
    assert value_of("centre_accuracy", Z, y, image_ids=images) == 100 * right.mean()
    right = by_image(left_out(KNeighborsClassifier(1), Z, y, images) == y, images)
    assert share_of_neighbours(Z, y, images, k=1) == 100 * right.mean()
    two = y < 2  # an odd vote between two classes has no tie
    right = by_image(
        left_out(KNeighborsClassifier(5), Z[two], y[two], images[two]) == y[two], images[two]
    )
    assert share_of_neighbours(Z[two], y[two], images[two], k=5) == 100 * right.mean()


def test_a_tie_of_neighbours_goes_to_the_class_of_the_nearest():
    Z = np.array([[0.0], [1], [2.5], [4], [6], [6.1], [7]])
    y = [0, 1, 1, 0, 0, 1, 1]
    predicted = []
    for row in range(len(Z)):
        nearest = sorted(
            set(range(len(Z))) - {row}, key=lambda other, row=row: abs(Z[other, 0] - Z[row, 0])
        )[:4]
        votes = [y[other] for other in nearest]
        predicted.append(votes[0] if votes.count(0) == 2 else max(votes, key=votes.count))
    assert share_of_neighbours(Z, y, k=4) == 100 * np.mean(np.array(predicted) == y)


def test_with_few_samples_all_of_other_images_vote():
    Z = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.2], [5.3]]
    y = ["a", "a", "a", "b", "b", "b", "b"]
    # Four b's outvote each a. A b has a tie, which a nearer b breaks; without its repeat, it is outvoted too.
    assert share_of_neighbours(Z, y, k=100) == pytest.approx(100 * 4 / 7)
    images = [0, 0, 1, 2, 2, 3, 3]
    assert share_of_neighbours(Z, y, images, k=100) == 0
    assert share_of_neighbours(Z, y, images, k=1) == 100


def chosen(Z, y, images):
    """Return leave-one-image-out hits of scikit-learn's ridge at the penalty of least squared error, and its index."""
    targets = np.where(y[:, None] == np.unique(y), 1.0, -1.0)
    scale = ((Z - Z.mean(0)) ** 2).sum() / min(Z.shape)
    errors = [
        ((left_out(Ridge(p * scale), Z, targets, images) - targets) ** 2).sum() for p in PENALTIES
    ]
    best = int(np.argmin(errors))
    return by_image(
        left_out(RidgeClassifier(PENALTIES[best] * scale), Z, y, images) == y, images
    ), best


@pytest.mark.parametrize(
    ("n", "d", "classes", "signal"), [(60, 7, 4, 0.5), (40, 90, 3, 0.15), (40, 6, 2, 0.1)]
)
def test_probe_hits_are_those_of_ridge_classifiers_refitted_without_each_image(
    n, d, classes, signal
):
    Z, y = example(n, d, classes, signal)
    expected, _ = chosen(Z, y, np.arange(n))
    assert_array_equal(hits_of_probe(Z, y), expected)
    assert 0.4 < expected.mean() < 1


def test_probe_hits_of_repeats_are_those_of_classifiers_without_the_image():
    for seed in range(2):
        Z, y, images = with_repeats(seed=seed)
        expected, _ = chosen(Z, y, images)
        assert_array_equal(hits_of_probe(Z, y, image_ids=images), expected)
        assert 0.3 < expected.mean() < 1


def test_the_probe_chooses_a_penalty_inside_its_range_and_a_great_one_for_noise():
    pixels, digits = load_digits(return_X_y=True)
    expected, best = chosen(pixels[:60], digits[:60], np.arange(60))
    assert 0 < best < len(PENALTIES) - 1
    assert_array_equal(hits_of_probe(pixels[:60], digits[:60]), expected)
    assert hits_of_probe(pixels, digits).mean() > 0.92
    Z, y = example(40, 90, signal=0)
    assert chosen(Z, y, np.arange(40))[1] == len(PENALTIES) - 1


def test_separate_classes_are_all_right_and_shuffled_labels_near_chance():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(5), 40)
    Z = rng.normal(size=(200, 10)) + 20 * np.eye(5, 10)[y]
    assert {transferability(Z, y)[name] for name in ACCURACIES} == {100}
    shuffled = transferability(Z, rng.permutation(y))
    assert all(8 < shuffled[name] < 32 for name in ACCURACIES)


@pytest.mark.parametrize("seed", range(3))
def test_repeats_of_an_image_never_help_to_recognise_it(seed):
    rng = np.random.default_rng(seed)
    images = np.repeat(np.arange(200), 3)
    Z = rng.normal(size=(200, 90))[images] + 0.01 * rng.normal(size=(600, 90))
    y = rng.permutation(np.arange(200) % 4)[images]
    scores = transferability(Z, y, image_ids=images)
    assert all(10 < scores[name] < 37 for name in ACCURACIES), scores
    assert len(unpack_hits(scores["probe_hits"])) == 200
    # The accuracies if repeats are mistaken for separate images.
    assert share_of_neighbours(Z, y, k=1) == 100
    assert hits_of_probe(Z, y).mean() > 0.45
