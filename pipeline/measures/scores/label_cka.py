"""Centred kernel alignment of the embedding and the labels."""

import numpy as np

from ..core.arrays import group_sums, namespace, to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.registry import score


@score("label_cka", task="values")
def label_cka(context: MeasureContext) -> float:
    """Return linear CKA of the embedding and one-hot labels, 0 to 1.

    It is |Y'Z|^2 / (|Z'Z| |Y'Y|), in Frobenius norms of centred columns: how much of the rows' similarity is that of
    their classes. It is 1 only if classes are points at equal distances. The estimate is the biased one, whose value
    without signal grows with the ratio of classes to rows. Undefined for a constant embedding.

    References
    ----------
    Kornblith et al., Similarity of neural network representations revisited, ICML 2019 (arXiv 1905.00414); with labels,
    kernel alignment of Cristianini et al., NeurIPS 2001.
    """
    values, classes = context.centred_values, context.classes
    xp = namespace(values)
    # |Z'Z| = |ZZ'|, whichever is smaller: cheaper than singular values, which halves do not compute by default.
    similarity = values @ values.T if context.n <= context.d else values.T @ values
    of_values = float(xp.linalg.vector_norm(similarity))
    if of_values == 0:
        raise UndefinedScore("all rows are the same")
    sums = to_host(group_sums(values, classes))  # Y'Z, whose rows need no centring as Z has none
    sizes = np.bincount(classes).astype(float)
    # |Y'Y|^2 of centred one-hot columns: their Gram matrix is diag(sizes) - sizes sizes' / n.
    gram = np.diag(sizes) - np.outer(sizes, sizes) / len(classes)
    return float(np.sum(sums**2)) / of_values / float(np.linalg.norm(gram))
