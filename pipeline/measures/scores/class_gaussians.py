"""Scores that describe an embedding by Gaussians: one per class (GBC), or a mixture that knows no classes (N-LEEP)."""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import count_different, group_means, group_sums, namespace, rows_of, to_host
from ..core.checks import UndefinedScore, as_classes, as_embedding, as_seed
from ..core.decomposition import Decomposition, centred, decomposed

GBC_DIMENSIONS = 64
ROUNDING = 1e-12  # of the variance

LEEP_ENERGY = 0.8  # share of the variance that the mixture sees
LEEP_COMPONENTS = 5  # a class
LEEP_FEWEST = 2  # points a component: with one, each point would be told its own class
LEEP_DIGITS = 9  # to which equal rows agree, in units of the spread


def gbc(Z: ArrayLike, labels: ArrayLike) -> float:
    """The Gaussian Bhattacharyya coefficient: how much the classes overlap, as spherical Gaussians.

    Minus the sum of exp(-D) over ordered pairs of classes, each pair twice, in the first 64 principal components:
    D = |m_a - m_b|^2 / (8 v) + k / 2 ln(v / sqrt(v_a v_b)), v = (v_a + v_b) / 2, with a class's mean m, its variance
    a dimension v_c (divided by its size) and the number of components k. The authors' published code counts the
    logarithm once rather than k times, and raises variances to 1e-4; here it is the distance of their equation, which
    does not depend on the embedding's scale.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1]
        The class of each sample.

    Returns
    -------
    float
        Minus the number of ordered pairs (classes that coincide) to 0 (no overlap), a plain number.

    Raises
    ------
    UndefinedScore
        If a class has a single sample, or all its samples are the same.
    ValueError
        As the other measures.

    References
    ----------
    Pandy et al., Transferability estimation using Bhattacharyya class separability, CVPR 2022 (arXiv 2111.12780).
    """
    embedding = as_embedding(Z)
    classes = as_classes(labels, len(embedding))
    return gbc_of_decomposition(decomposed(centred(embedding)[0]), classes)


def n_leep(Z: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> float:
    """N-LEEP: the mean log likelihood of the labels by the components of a Gaussian mixture.

    The principal components with 80% of the variance get a mixture of five Gaussians per class, which sees no label. A
    sample of component shares p(z | x) has the label y with probability sum_z p(y | z) p(z | x), p(y | z) being the
    share of label y in component z over all samples, this one included.

    Covariances are diagonal, in the principal components: full ones, as in published code, have more parameters than
    a component has points, and take more than ten seconds for 3000 points in 386 dimensions. Nothing depends on the
    embedding's scale.

    Parameters
    ----------
    Z, labels
        As for ``gbc``.
    seed : int
        Seed of the mixture's start.

    Returns
    -------
    float
        Nats a sample, at most 0.

    Raises
    ------
    UndefinedScore
        For fewer than two different points a component, ten times the number of classes.
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
    _require_variance(decomposition)
    xp = namespace(decomposition.matrix)
    components = decomposition.components
    points = components[:, max(0, components.shape[1] - GBC_DIMENSIONS) :]
    sizes = np.bincount(classes)
    if sizes.min() < 2:
        raise UndefinedScore("a class of one sample has no variance")
    k = points.shape[1]
    means = group_means(points, classes)
    deviations = points - rows_of(means, classes)
    squared = to_host(xp.vecdot(deviations, deviations))
    variances = np.bincount(classes, weights=squared) / (sizes * k)
    if variances.min() <= ROUNDING * float(xp.mean(points * points)):
        raise UndefinedScore("all samples of a class are the same")
    centres = to_host(means)
    a, b = np.triu_indices(len(sizes), 1)
    mean_variances = (variances[a] + variances[b]) / 2
    apart = ((centres[a] - centres[b]) ** 2).sum(axis=1) / (8 * mean_variances)
    unequal = k / 2 * np.log(mean_variances / np.sqrt(variances[a] * variances[b]))
    return 0.0 - 2 * float(np.exp(-apart - unequal).sum())


def leep_log_likelihoods(
    decomposition: Decomposition, classes: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """The log likelihood of each sample's label in nats, float64 [n], whose mean is ``n_leep``.

    From the decomposition of the centred embedding.
    """
    shares = _component_shares(decomposition, LEEP_COMPONENTS * (int(classes.max()) + 1), seed)
    together = group_sums(shares, classes)
    of_component = together.sum(axis=0)
    # A component that no point belongs to, because its shares are below the least number, says nothing.
    label_shares = np.divide(
        together, of_component, out=np.zeros_like(together), where=of_component > 0
    )
    likelihoods = np.einsum("nz,nz->n", shares, label_shares[classes])
    return np.log(np.minimum(likelihoods, 1))  # rounding may exceed 1


def _component_shares(
    decomposition: Decomposition, components: int, seed: int
) -> NDArray[np.float64]:
    """The shares p(z | x) of each sample in the mixture's components, float64 [n, components]."""
    from sklearn.exceptions import ConvergenceWarning  # imported here: scikit-learn takes a second
    from sklearn.mixture import GaussianMixture

    _require_variance(decomposition)
    variances = to_host(decomposition.squares)[::-1]
    kept = int(np.searchsorted(np.cumsum(variances), LEEP_ENERGY * variances.sum())) + 1
    points = to_host(decomposition.components[:, -kept:])[:, ::-1].copy()
    points /= np.sqrt((points**2).mean())  # the mixture adds 1e-6 to variances
    different = count_different(points, LEEP_DIGITS)
    fewest = LEEP_FEWEST * components
    if different < fewest:
        raise UndefinedScore(
            f"{different} different points, fewer than {fewest} for {components} Gaussians"
        )
    mixture = GaussianMixture(components, covariance_type="diag", random_state=seed)
    with warnings.catch_warnings():
        # After 100 steps it is good enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(points)
    shares: NDArray[np.float64] = mixture.predict_proba(points)
    return shares


def _require_variance(decomposition: Decomposition) -> None:
    if not decomposition.squares.shape[0]:
        raise UndefinedScore("all rows are the same")
