"""Negative conditional entropy of the labels, given the predictions of a network's own classifier."""

import numpy as np
from numpy.typing import NDArray

# Also for `leep`, which then equals NCE.
ONE_LABEL = "each class that the classifier predicts has one label here, so nothing varies"


def nce(
    predictions: NDArray[np.int64], labels: NDArray[np.int64], images: NDArray[np.int64]
) -> tuple[float, float | None]:
    """Return the negative conditional entropy, in nats, and its standard error over images.

    NCE = mean over rows of ln P(y | z), with the classes z that the network's own classifier predicts and
    P(y | z) = n(y, z) / n(z) counted on the same rows. It is at most 0, where the predictions determine the labels. The
    order of the classifier's outputs does not matter. With few rows of each z it is too high: a classifier of 1,000
    classes on 300 images separates many of them by chance. Where each z has one label, the error is unknown, so None.
    Tran et al. use true labels of the source task; for images without them, predictions take their place, as in
    Nguyen et al.

    Parameters
    ----------
    predictions : int64 [n]
        The classifier's choice for each row.
    labels, images : int64 [n]
        Class and image of each row.

    References
    ----------
    Tran, Nguyen and Hassner, Transferability and hardness of supervised classification tasks, ICCV 2019
    (arXiv 1908.08142); Nguyen et al., LEEP, ICML 2020 (arXiv 2002.12462).
    """
    pairs = np.stack([predictions, labels], axis=1)
    _, of_row, together = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    _, source, alone = np.unique(predictions, return_inverse=True, return_counts=True)
    logarithms = np.log(together[of_row.reshape(-1)] / alone[source])
    _, image = np.unique(images, return_inverse=True)
    of_images = np.bincount(image, logarithms) / np.bincount(image)
    value = float(logarithms.mean())
    if not value:
        return 0.0, None
    return value, float(np.std(of_images, ddof=1) / np.sqrt(len(of_images)))
