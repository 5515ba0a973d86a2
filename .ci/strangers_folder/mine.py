"""A stranger's own measure."""

import numpy as np


def spread(Z: np.ndarray, labels: np.ndarray) -> float:
    """The standard deviation of the embedding's values."""
    return float(Z.std())
