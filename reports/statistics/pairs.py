"""The gain from a second backbone: the best pair of models, and the gain of choosing pairs at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dsmi_zoo.pipeline.config.finetuning import folds_of
from dsmi_zoo.pipeline.store.pairs import PairHits

from .correlation import holm
from .paired import gain_interval, two_sided_p
from .ranking import Quantity


@dataclass(frozen=True)
class Pair:
    """Two models: the accuracy (%) of the probe on both, with its interval.

    ``gain`` is in points above the better of the two; ``p_holm`` is the p value of the exact paired test against the
    best single model, after Holm's correction over all pairs.
    """

    first: str
    second: str
    accuracy: float
    low: float
    high: float
    gain: float
    p_holm: float


@dataclass(frozen=True)
class Pairs:
    """All pairs of some models, the best first, and the gain from choosing a pair.

    Attributes
    ----------
    best_single, best_accuracy
        The best of the models alone, and its accuracy (%).
    gain, low, high, p
        The gain in points, its 95% interval and the p value of the paired test. On each half of the images, the pair
        and the single model are those chosen on the other half, so the choice of the best of many inflates neither.
    """

    models: int
    pairs: tuple[Pair, ...]
    best_single: str
    best_accuracy: float
    gain: float
    low: float
    high: float
    p: float


def of_pairs(
    singles: Mapping[str, np.ndarray],
    pairs: Sequence[PairHits],
    classes: np.ndarray,
    quantity: Quantity,
) -> Pairs | None:
    """Compare pairs of models with the best single one; None without pairs.

    Parameters
    ----------
    singles
        The hits of each model's probe, bool [m], by its name.
    pairs
        The hits of each pair, with the models' names.
    classes
        The class of each image, int64 [m].
    """
    if not pairs:
        return None
    names = list(dict.fromkeys(name for one in pairs for name in one[:2]))
    alone, together = (
        np.array([singles[name] for name in names]),
        np.array([one.hits for one in pairs]),
    )
    accuracies = {name: quantity.value(hits) for name, hits in zip(names, alone, strict=True)}
    weights = quantity.weights(len(classes))
    best = max(names, key=accuracies.__getitem__)
    adjusted = holm(dict(enumerate(two_sided_p(singles[best], together, weights).tolist())))
    found = []
    for place, one in enumerate(pairs):
        accuracy, (low, high) = quantity.value(one.hits), quantity.interval(one.hits)
        gain = accuracy - max(accuracies[one.first], accuracies[one.second])
        found.append(Pair(one.first, one.second, accuracy, low, high, gain, adjusted[place]))
    chosen_alone, chosen_together = _chosen_by_other_halves(alone, together, classes, weights)
    low, high = gain_interval(chosen_together, chosen_alone, weights)
    gain = 100 * float(weights @ (chosen_together.astype(float) - chosen_alone))
    p = float(two_sided_p(chosen_alone, chosen_together[None], weights)[0])
    order = sorted(found, key=lambda pair: -pair.accuracy)
    return Pairs(len(names), tuple(order), best, accuracies[best], gain, low, high, p)


def _chosen_by_other_halves(
    alone: np.ndarray, together: np.ndarray, classes: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hits, bool [m] each, of the single model and of the pair that the other half of the images chose."""
    half_of = folds_of(classes, 2, seed=0)
    found = []
    for hits in (alone, together):
        chosen = np.empty(len(classes), dtype=bool)
        for half in (0, 1):
            here = half_of == half
            chosen[here] = hits[np.argmax(hits[:, ~here] @ weights[~here])][here]
        found.append(chosen)
    return found[0], found[1]
