"""Scores by Gaussians: how much the classes overlap (GBC), and how well a mixture tells them apart (N-LEEP)."""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .decomposition import Decomposition, centred, decomposed, group_sums
from .inputs import as_classes, as_embedding, as_seed
from .undefined import UndefinedScore

GBC_DIRECTIONS = 64  # principal components that are kept, as in the paper
ENERGY = 0.8  # share of the variance that the components of N-LEEP hold
COMPONENTS_A_CLASS = 5
ITERATIONS = 100
LEAST = float(np.finfo(np.float64).tiny)


def gbc(Z: ArrayLike, labels: ArrayLike) -> float:
    """The Gaussian Bhattacharyya coefficient with spherical Gaussians: minus the overlap of all pairs of classes.

    Each class is a Gaussian with its mean and one variance s in all k = 64 first principal components of the embedding.
    For two classes, D = |m - m'|^2 / (8 a) + k / 2 ln(a / sqrt(s s')), a = (s + s') / 2; the score is minus the sum of
    exp(-D) over ordered pairs. The authors' code leaves k out of the second term of spherical Gaussians, where it
    belongs by the paper's equation.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row a sample.
    labels : [n] or [n, 1]
        The class of each sample.

    Returns
    -------
    float
        Minus the number of ordered pairs (all classes the same) to 0 (no overlap). The scale does not matter.

    Raises
    ------
    UndefinedScore
        If the rows of a class are all the same, or it has one only.
    ValueError
        As the other measures.

    References
    ----------
    Pandy et al., Transferability estimation using Bhattacharyya class separability, CVPR 2022 (arXiv 2111.12780).
    """
    embedding = as_embedding(Z)
    return gbc_of_decomposition(decomposed(centred(embedding)[0]), as_classes(labels, len(embedding)))


def n_leep(Z: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> float:
    """N-LEEP: how well the components of a Gaussian mixture, fitted without labels, tell the labels.

    The mixture has five components a class, diagonal covariances, and stands on the principal components that hold 80%
    of the variance. With P(z|x) a sample's share in each component and P(y|z) the share of the labels in it, the score
    is the mean log of P(y|x) = sum_z P(y|z) P(z|x) at the true label. The paper leaves the covariances open; full ones
    have more entries than the mixture has samples.

    Parameters
    ----------
    Z, labels
        As for ``gbc``.
    seed : int
        Seed of the mixture's start.

    Returns
    -------
    float
        Nats, at most 0. The scale does not matter.

    Raises
    ------
    UndefinedScore
        For a constant embedding, or fewer different rows than twice the components.
    ValueError
        As the other measures.

    References
    ----------
    Li et al., Ranking neural checkpoints, CVPR 2021 (arXiv 2011.11200); Nguyen et al., LEEP, ICML 2020
    (arXiv 2002.12462); scikit-learn's ``GaussianMixture``.
    """
    embedding = as_embedding(Z)
    classes = as_classes(labels, len(embedding))
    decomposition = decomposed(centred(embedding)[0])
    return float(leep_log_likelihoods(decomposition, classes, as_seed(seed)).mean())


def gbc_of_decomposition(decomposition: Decomposition, classes: NDArray[np.int64]) -> float:
    """``gbc`` from the decomposition of the centred embedding."""
    values = principal_components(decomposition)[:, :GBC_DIRECTIONS]
    k, sizes = values.shape[1], np.bincount(classes)
    means = group_sums(values, classes) / sizes[:, None]
    squares = ((values - means[classes]) ** 2).sum(axis=1)
    variances = np.bincount(classes, squares) / (sizes * k)
    alone = variances <= np.finfo(np.float64).eps * (values**2).mean()
    if alone.any():
        raise UndefinedScore(f"the rows of {alone.sum()} of {len(sizes)} classes are all the same")
    between = (variances[:, None] + variances) / 2
    apart = ((means[:, None] - means) ** 2).sum(axis=2)
    distances = apart / (8 * between) + k / 2 * np.log(between / np.sqrt(np.outer(variances, variances)))
    overlaps = np.exp(-distances)
    np.fill_diagonal(overlaps, 0)
    return float(-overlaps.sum())


def leep_log_likelihoods(decomposition: Decomposition, classes: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """The log of P(y|x) at each sample's label, nats, float64 [n], from the decomposition of the centred embedding."""
    values = principal_components(decomposition)
    of_each = (values**2).mean(axis=0)
    kept = int(np.searchsorted(np.cumsum(of_each), ENERGY * of_each.sum())) + 1
    values = values[:, :kept] / np.sqrt(of_each[:kept].sum())
    components = COMPONENTS_A_CLASS * (int(classes.max()) + 1)
    different = len(np.unique(values, axis=0))
    if different < 2 * components:
        raise UndefinedScore(f"{different} different rows for a mixture of {components} components, fewer than twice")
    belongs = _mixture_shares(values, components, seed)
    joint = group_sums(belongs, classes) / len(classes)  # P(y, z)
    labels_of = joint / np.maximum(joint.sum(axis=0), LEAST)  # P(y | z)
    likelihoods = np.einsum("nz,nz->n", belongs, labels_of[classes])
    return np.asarray(np.log(np.clip(likelihoods, LEAST, 1)))


def principal_components(decomposition: Decomposition) -> NDArray[np.float64]:
    """The coordinates of the samples along the principal directions, the widest first, float64 [n, r]."""
    if not len(decomposition.squares):
        raise UndefinedScore("all rows are the same")
    return (decomposition.vectors * np.sqrt(decomposition.squares))[:, ::-1]


def _mixture_shares(values: NDArray[np.float64], components: int, seed: int) -> NDArray[np.float64]:
    """Each sample's share in each component, float64 [n, components]."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(components, covariance_type="diag", max_iter=ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the share of a component hardly moves any more
        shares: NDArray[np.float64] = mixture.fit(values).predict_proba(values)
    return shares
