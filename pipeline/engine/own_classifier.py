"""The scores of a network by its own classifier, which are computed after the forward pass."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..measures.core.checks import UndefinedScore
from ..measures.scores.leep import ONE_IMAGE, leep
from ..measures.scores.nce import ONE_LABEL, nce

if TYPE_CHECKING:
    from ..networks.forward import Embedding

Fields = dict[str, Any]
Reasons = dict[str, str]
Scored = tuple["Embedding", Fields, Reasons]


def scored_by_classifier(embedding: "Embedding", labels: np.ndarray, images: np.ndarray) -> Scored:
    """Return an embedding without its probabilities, which are large, beside the scores from them."""
    scores = scores_of_classifier(embedding, labels, images)
    return replace(embedding, probabilities=None), *scores


def scores_of_classifier(
    embedding: "Embedding", labels: np.ndarray, images: np.ndarray
) -> tuple[Fields, Reasons]:
    """Return NCE and LEEP with their errors, and why one has no value; nothing for a network without a classifier.

    Parameters
    ----------
    embedding
        With ``predictions`` and ``probabilities``.
    labels, images : int64 [n]
        Class and image of each row.
    """
    if embedding.predictions is None:
        return {}, {}
    value, error = nce(embedding.predictions, labels, images)
    fields: Fields = {"nce": value, "nce_se": error}
    reasons: Reasons = {} if error is not None else {"nce_se": ONE_LABEL}
    if embedding.probabilities is None:
        n, width = len(labels), embedding.n_logits
        reasons["leep"] = f"the probabilities of {n:,} images by {width:,} outputs exceed 1 GiB"
        return fields, reasons
    try:
        value, error = leep(embedding.probabilities, labels, images)
    except UndefinedScore as undefined:
        return fields, reasons | {"leep": str(undefined)}
    fields |= {"leep": value, "leep_se": error}
    if error is None:
        reasons["leep_se"] = ONE_IMAGE if value else ONE_LABEL
    return fields, reasons
