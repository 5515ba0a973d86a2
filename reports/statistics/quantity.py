"""What models are ranked by: accuracy on the images as they come, or balanced accuracy; with interval and baseline."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from dsmi_zoo.pipeline.config.run import Metric
from dsmi_zoo.pipeline.measures.core.hits import wilson_limits

TITLES: dict[Metric, str] = {
    "accuracy": "probe accuracy",
    "balanced_accuracy": "balanced probe accuracy",
}


@dataclass(frozen=True)
class Quantity:
    """A share of hits on images, and how much each image counts.

    Attributes
    ----------
    metric
        ``accuracy``: all images count the same. ``balanced_accuracy``: all classes do.
    classes
        The class of each image, int64 [m], numbered from 0; None if unknown, then only accuracy can be computed.
    baseline
        The value of always naming the largest class, in percent; None if unknown.
    """

    metric: Metric = "accuracy"
    classes: np.ndarray | None = None
    baseline: float | None = None

    @property
    def title(self) -> str:
        """Its name in a sentence."""
        return TITLES[self.metric]

    def weights(self, images: int) -> np.ndarray:
        """Return the weight of each of ``images`` images, float64 [m]; they add up to 1."""
        if self.metric == "accuracy":
            return np.full(images, 1 / images)
        assert self.classes is not None
        sizes = np.bincount(self.classes)
        return 1 / (np.count_nonzero(sizes) * sizes[self.classes])

    def value(self, hits: np.ndarray) -> float:
        """Return the value for a model's hits, bool [m], in percent."""
        if self.metric == "accuracy":
            return 100 * float(hits.mean())
        return 100 * float(self.weights(len(hits)) @ hits)

    def interval(self, hits: np.ndarray, level: float = 0.05) -> tuple[float, float]:
        """Return the limits of the interval of coverage 1 - ``level``, in percent.

        Wilson's for accuracy. For balanced accuracy, those of the classes combined by the distances of their limits
        from their estimates; with one class, or accuracy itself, they are Wilson's.

        References
        ----------
        Wilson (1927); Zou and Donner (2008), Construction of confidence limits about effect measures (MOVER).
        """
        if self.metric == "accuracy":
            of_class, n = np.array([hits.sum()]), np.array([len(hits)])
        else:
            assert self.classes is not None
            n = np.bincount(self.classes)
            of_class = np.bincount(self.classes, weights=hits)[n > 0]
            n = n[n > 0]
        share, value = of_class / n, (of_class / n).mean()
        low, high = wilson_limits(of_class, n, float(norm.isf(level / 2)))
        below = np.sqrt(((share - low) ** 2).sum()) / len(n)
        above = np.sqrt(((high - share) ** 2).sum()) / len(n)
        return max(0.0, 100 * float(value - below)), min(100.0, 100 * float(value + above))


ACCURACY = Quantity()
"""Accuracy on the images as they come, without a known baseline."""
