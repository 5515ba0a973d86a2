"""Negative conditional entropy of labels given a classifier's predictions."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from dsmi_zoo.pipeline.measures.scores.nce import nce


def drawn(seed: int, n: int = 400, share: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions, and labels of four classes: a ``share`` of predictions follow them, the rest are 1 of 10."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    guesses = generator.integers(0, 10, n)
    return np.where(generator.random(n) < share, 20 + labels, guesses), labels


def test_nce_is_mutual_information_less_the_entropy_of_the_labels() -> None:
    predictions, labels = drawn(0)
    value, _ = nce(predictions, labels, np.arange(400))
    assert value == pytest.approx(mutual_info_score(labels, predictions) - np.log(4))
    renamed, _ = nce(999 - predictions, labels + 5, np.arange(400))
    assert renamed == pytest.approx(value)


def test_its_standard_error_is_the_spread_over_fresh_images() -> None:
    both = [nce(*drawn(seed), np.arange(400)) for seed in range(60)]
    values, errors = np.array(both, dtype=float).T
    assert np.median(errors) / values.std(ddof=1) == pytest.approx(1, abs=0.3)
    # Repeated images add no information.
    predictions, labels = (np.repeat(part, 3) for part in drawn(0))
    _, thrice = nce(predictions, labels, np.repeat(np.arange(400), 3))
    assert thrice == pytest.approx(errors[0])


def test_predictions_that_determine_the_labels_have_an_nce_of_0_and_no_error() -> None:
    labels = np.arange(40) % 4
    assert nce(labels * 7, labels, np.arange(40)) == (0.0, None)
    value, _ = nce(np.zeros(40, int), labels, np.arange(40))
    assert value == pytest.approx(-np.log(4))
