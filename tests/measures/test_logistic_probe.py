"""The cross-validated logistic probe against scikit-learn's own search within folds."""

import numpy as np
import pytest
from by_name import value_of
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_more_scores import example

from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore, order_of_appearance
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.scores.logistic_probe import (
    CHOICES,
    FOLDS,
    INNER_FOLDS,
    _folds,
    hits,
)


@pytest.mark.parametrize(("n", "d", "repeats"), [(90, 8, 1), (50, 70, 1), (40, 6, 2)])
def test_the_logistic_probe_is_scikit_learns_search_within_each_fold(
    n: int, d: int, repeats: int
) -> None:
    Z, y = example(n=n, d=d, signal=0.6)
    y = order_of_appearance(y)
    images = np.repeat(np.arange(n), repeats)
    Z = Z[images] + 0.3 * np.random.default_rng(1).normal(size=(len(images), d))
    classes, seed = y[images], 4
    generator = np.random.default_rng(seed)
    guesses = np.empty_like(classes)
    for train, test in _folds(images, y, np.arange(n), FOLDS, generator):
        place = np.full(len(images), -1)
        place[train] = np.arange(len(train))
        inner = [
            (place[fit], place[held])
            for fit, held in _folds(images, y, np.unique(images[train]), INNER_FOLDS, generator)
        ]
        search = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
            {"logisticregression__C": CHOICES},
            cv=inner,
        )
        guesses[test] = search.fit(Z[train], classes[train]).predict(Z[test])
    right = np.bincount(images, weights=guesses == classes) > repeats / 2
    context = MeasureContext(Z, classes, images, None, MeasureSettings(seed=seed))
    # Our solver stops earlier, which may flip a row between two classes.
    assert (hits(context) != right).sum() <= 1
    assert 40 < 100 * right.mean() < 98


def test_folds_hold_whole_images_and_equal_shares_of_each_class() -> None:
    images = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 3))
    of_image = np.repeat([0, 1, 2], [30, 20, 10])
    held = []
    for fit, test in _folds(images, of_image, np.arange(60), 5, np.random.default_rng(2)):
        assert not set(images[fit]) & set(images[test])
        assert np.bincount(of_image[np.unique(images[test])]).tolist() == [6, 4, 2]
        held.append(test)
    assert sorted(np.concatenate(held)) == list(range(180))


def test_the_logistic_probe_of_noise_is_at_chance_and_of_far_classes_right() -> None:
    generator = np.random.default_rng(0)
    y = np.arange(120) % 2
    noise = generator.normal(size=(120, 5))
    assert 30 < value_of("logistic_probe_accuracy", noise, y) < 70
    assert value_of("logistic_probe_accuracy", noise + 100 * y[:, None], y) == 100
    # Unlike the ridge probe's, its features are standardised one by one.
    scales = np.array([1e6, 1, 1, 1, 1e-6])
    assert value_of("logistic_probe_accuracy", noise * scales, y) == value_of(
        "logistic_probe_accuracy", noise, y
    )


def test_a_class_of_two_images_has_no_logistic_probe_but_a_reason() -> None:
    Z, y = example(n=40)
    y[:2] = 9
    with pytest.raises(UndefinedScore, match="a class has 2 images, folds within folds need 3"):
        value_of("logistic_probe_accuracy", Z, y)


def test_many_classes_of_few_images_raise_no_warning() -> None:
    labels = np.arange(160) % 40
    Z = np.eye(40)[labels] + 0.1 * np.random.default_rng(0).normal(size=(160, 40))
    assert value_of("logistic_probe_accuracy", Z, labels) == 100
