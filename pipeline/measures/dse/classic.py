"""Classic Shannon entropy and mutual information of an embedding in bins, in bits."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import Array, namespace, stacked_rows, to_host
from ..core.checks import as_classes, as_embedding
from ..core.context import MeasureContext
from ..core.exact_or_estimated import Estimate
from ..core.registry import score
from ..core.settings import MeasureSettings, checked_settings
from ..core.threads import computed_once, in_threads
from .spectrum import probability_entropy
from .subsets import Subset, SubsetEntropies, of_equal_size

_FEW_BINS = 8


def shannon_entropy(Z: ArrayLike, *, bins: int = 2) -> float:
    """Return the classic Shannon entropy (CSE) of an embedding in bins, in bits.

    Each dimension is cut into equal bins between its own smallest and largest value; samples that share all their bins
    are one event. A constant dimension is one bin. With many dimensions nearly every sample is alone in its bin, and
    the entropy is log2 n whatever the embedding, which is the reason for the diffusion spectral entropy.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    bins : int
        Bins per dimension.

    Returns
    -------
    float
        Bits, from 0 to log2 n.

    Raises
    ------
    ValueError
        If Z is not a finite numeric matrix, or bins is not a positive whole number.

    References
    ----------
    The baseline of Liao et al., arXiv 2312.04823.
    """
    settings = checked_settings({"bins": bins}, "shannon_entropy")
    return float(_binned_entropies(as_embedding(Z)[None, :, :], settings.bins)[0])


def shannon_mutual_information(
    Z: ArrayLike, labels: ArrayLike, *, bins: int = 2, repetitions: int = 5, seed: int = 0
) -> float:
    """Return the mutual information (CSMI) of an embedding and labels, in bits, from the classic entropy in bins.

    It is `diffusion_spectral_mutual_information` with `shannon_entropy` in place of the diffusion spectral entropy.
    Each subset is binned between its own smallest and largest values.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1]
        The class of each sample.
    bins : int
        Bins per dimension.
    repetitions : int
        Random subsets for each class size.
    seed : int
        Seed of the random subsets.

    Returns
    -------
    float
        Bits.

    Raises
    ------
    ValueError
        As for `diffusion_spectral_mutual_information`.

    References
    ----------
    The baseline of Liao et al., arXiv 2312.04823.
    """
    given = {"bins": bins, "repetitions": repetitions, "seed": seed}
    settings = checked_settings(given, "shannon_mutual_information")
    embedding = as_embedding(Z)
    classes = as_classes(labels, len(embedding))
    return BinnedEntropies(embedding, settings).information(classes).value


class BinnedEntropies(SubsetEntropies):
    """Classic entropies of subsets of an embedding [n, d]."""

    def __init__(self, Z: Array, settings: MeasureSettings) -> None:
        super().__init__(Z.shape[0], settings)
        self.Z = Z

    def of(self, subsets: Sequence[Subset]) -> list[Estimate]:
        """Return the entropy of each subset, in bits."""
        entropies = np.empty(len(subsets))

        def solve(numbers: list[int]) -> None:
            stack = stacked_rows(self.Z, np.stack([subsets[number] for number in numbers]))
            entropies[numbers] = _binned_entropies(stack, self.settings.bins)

        in_threads(solve, list(of_equal_size(subsets, numbers_each=self.Z.shape[1])))
        return [Estimate(entropy, 0.0, "exact") for entropy in entropies.tolist()]


def _binned_entropies(stack: Array, bins: int) -> NDArray[np.float64]:
    """Return the entropy, in bits, of each of the embeddings [m, k, d] in its own bins: float64 [m]."""
    xp = namespace(stack)
    lowest = xp.min(stack, axis=1, keepdims=True)
    span = xp.max(stack, axis=1, keepdims=True) - lowest
    # In a constant dimension all scaled values are 0, so all fall in the first bin.
    span[span == 0] = 1.0
    scaled = (stack - lowest) / span
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    if bins <= _FEW_BINS:  # comparing with every edge is faster than searching among them
        # A bit for each edge that a value reaches: rows in the same bins have the same bytes.
        above = [np.packbits(to_host(scaled >= edge), axis=2) for edge in edges.tolist()]
        # A single bin has no edges, but needs a column.
        no_edges = np.zeros((*stack.shape[:2], 1), dtype=np.uint8)
        cells = np.concatenate([no_edges, *above], axis=2)
    else:
        cells = np.digitize(to_host(scaled), edges).astype(np.min_scalar_type(bins))
    entropies = []
    for rows in cells:
        counts = Counter(row.tobytes() for row in rows)
        entropies.append(float(probability_entropy(np.array(list(counts.values())) / len(rows))))
    return np.array(entropies)


@computed_once
def _entropies(context: MeasureContext) -> BinnedEntropies:
    return BinnedEntropies(context.points.values, context.settings)


@score("cse_z", task="values")
def cse_z(context: MeasureContext) -> float:
    """Return the classic entropy of the embedding."""
    return float(_binned_entropies(context.points.values[None, :, :], context.settings.bins)[0])


@score("csmi_z_y", task="values")
def csmi_z_y(context: MeasureContext) -> float:
    """Return the classic mutual information with the labels."""
    return _entropies(context).information(context.classes).value


@score("csmi_z_x", task="values")
def csmi_z_x(context: MeasureContext) -> float:
    """Return the classic mutual information with the clusters of the inputs."""
    return _entropies(context).information(context.clusters).value
