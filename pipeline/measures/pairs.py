"""The probe on two embeddings together: what a second backbone adds to a first one."""

import numpy as np
from numpy.typing import NDArray

from .core.context import MeasureContext
from .core.settings import MeasureSettings
from .scores.probe import hits


def comparable(Z: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return an embedding [n, d] less its mean, with a total variance of 1, so that two weigh the same in a probe."""
    centred = Z.astype(np.float64)
    centred /= np.abs(centred).max() or 1.0  # squares stay in range
    centred -= centred.mean(axis=0)
    norm = np.sqrt(np.einsum("ij,ij->", centred, centred) / len(Z))
    return centred / norm if norm > 0 else centred


def pair_hits(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    labels: NDArray[np.int64],
    images: NDArray[np.str_],
) -> NDArray[np.bool_]:
    """Return whether the probe on both embeddings, which has not seen an image, recognises it, bool [images].

    It is the probe of ``probe_accuracy`` on [n, d1 + d2]: leave-one-out ridge in closed form.

    Parameters
    ----------
    first, second
        As ``comparable`` returns them, [n, d1] and [n, d2].
    labels, images
        The class and the image of each row, [n].

    Raises
    ------
    UndefinedScore
        When there is only one class.
    """
    both = np.concatenate([first, second], axis=1)
    return hits(MeasureContext(both, labels, images, None, MeasureSettings()))


def work_of(n: int, d: int) -> float:
    """Return about how many floating-point operations ``pair_hits`` takes on n rows of d = d1 + d2 dimensions."""
    return float(n) * d * min(n, d)
