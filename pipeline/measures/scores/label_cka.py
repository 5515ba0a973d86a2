"""Centred kernel alignment of the embedding and the labels."""

import numpy as np

from ..core.arrays import group_sums, namespace, to_host
from ..core.context import MeasureContext
from ..core.registry import score


@score("label_cka", task="decomposition")
def label_cka(context: MeasureContext) -> float:
    """Return linear CKA of the embedding and one-hot labels, 0 to 1.

    |Y'Z|^2 / (|Z'Z| |Y'Y|), Frobenius norms of columns less their means: how much of the rows' similarity is that of
    their classes. 1 only if classes are points at equal distances. The estimate is the biased one, whose value without
    signal grows with the classes over the rows. Undefined for a constant embedding.

    References
    ----------
    Kornblith et al., Similarity of neural network representations revisited, ICML 2019 (arXiv 1905.00414); with labels,
    kernel alignment of Cristianini et al., NeurIPS 2001.
    """
    decomposition, classes = context.decomposition, context.classes
    decomposition.require_variance()
    squares = decomposition.squares
    xp = namespace(squares)
    sums = to_host(
        group_sums(context.centred_values, classes)
    )  # Y'Z, whose rows need no centring as Z has none
    sizes = np.bincount(classes).astype(float)
    # |Y'Y|^2 of centred one-hot columns: their Gram matrix is diag(sizes) - sizes sizes' / n.
    gram = np.diag(sizes) - np.outer(sizes, sizes) / len(classes)
    norms = float(xp.linalg.vector_norm(squares)) * float(np.linalg.norm(gram))
    return float(np.sum(sums**2)) / norms
