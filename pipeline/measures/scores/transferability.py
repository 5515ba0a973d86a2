"""Scores that say without training how well an embedding will serve: what one would use instead of the measures.

All are pure functions of arrays; repeats of an image count as samples of their own. The functions that end in
``_of_decomposition`` or ``_of_centred`` take what several scores share.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import (
    Array,
    beside,
    group_means,
    namespace,
    rows_of,
    times_power_of_two,
    to_host,
)
from ..core.checks import as_classes, as_embedding
from ..core.decomposition import Decomposition, centred, decomposed, scaled

TRANSRATE_EPSILON = 1e-4  # the paper's distortion, in squared units of the embedding
RANKME_EPSILON = 1e-7  # the paper's, added to each share
ROUNDING = float(np.finfo(np.float64).eps)
RATIOS = np.logspace(-9, 9, 19)  # LogME's alpha / beta, in units of the mean squared singular value
TOLERANCE = 1e-6  # of the logarithm of alpha / beta, at whose optimum the evidence is flat


def logme(Z: ArrayLike, labels: ArrayLike) -> float:
    """LogME: the maximised log evidence of Bayesian linear regression on the embedding, a mean over classes.

    For a class's one-hot column y, weights w ~ N(0, 1 / alpha) and y ~ N(Z w, 1 / beta), so that
    y ~ N(0, 1 / beta + Z Z^T / alpha); no intercept, features as they are. MacKay's fixed point of alpha and beta
    (which depends on alpha / beta only) is found by bisection around the best of a grid, so that it is not a lesser
    maximum.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1]
        The class of each sample.

    Returns
    -------
    float
        Nats a sample, for a density: of any sign. An embedding of rank below n that fits a column exactly has no
        greatest evidence: alpha / beta stays above 1e-9 times the mean squared singular value.

    Raises
    ------
    ValueError
        As the other measures.

    References
    ----------
    You et al., LogME, ICML 2021 (arXiv 2102.11005); You et al., JMLR 23 (2022), for the convergence.
    """
    embedding = as_embedding(Z)
    return logme_of_decomposition(
        decomposed(scaled(embedding)[0]), as_classes(labels, len(embedding))
    )


def h_score(Z: ArrayLike, labels: ArrayLike) -> float:
    """The H-score, regularised: tr(S_a^-1 (1 - a) B), 0 to the number of classes less one.

    B is the covariance of the samples' class means, S_a = (1 - a) S + a tr(S) / d the covariance of the embedding,
    shrunk by Ledoit and Wolf's coefficient a, without which it has no inverse where n < d. Both divide by n.

    Parameters
    ----------
    Z, labels
        As for ``logme``.

    Returns
    -------
    float
        A plain number; 0 for a constant embedding.

    Raises
    ------
    ValueError
        As the other measures.

    References
    ----------
    Bao et al., ICIP 2019; Ibrahim et al., arXiv 2110.06893, for the shrinkage; scikit-learn's ``LedoitWolf``.
    """
    embedding = as_embedding(Z)
    classes = as_classes(labels, len(embedding))
    return h_score_of_decomposition(decomposed(centred(embedding)[0]), embedding.shape[1], classes)


def transrate(Z: ArrayLike, labels: ArrayLike) -> float:
    """TransRate: the coding rate of the embedding less the mean one of its classes, R(Z) - sum n_c / n R(Z_c).

    R(Z) = 1/2 log det(1 + Z^T Z / (n 1e-4)), Z centred once over all samples. It is the paper's, which weights
    classes alike in its listing; here they weigh by their size, so that it is never negative. It depends on the scale
    of the embedding.

    Parameters
    ----------
    Z, labels
        As for ``logme``.

    Returns
    -------
    float
        Nats.

    Raises
    ------
    ValueError
        As the other measures.

    References
    ----------
    Huang et al., Frustratingly easy transferability estimation, ICML 2022 (arXiv 2106.09362).
    """
    embedding = as_embedding(Z)
    values, exponent = centred(embedding)
    return transrate_of_decomposition(
        values, decomposed(values), as_classes(labels, len(embedding)), exponent
    )


def rankme(Z: ArrayLike) -> float:
    """RankMe, a smooth rank: exp of the entropy of the singular values' shares, p = s / sum(s) + 1e-7.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample, not centred.

    Returns
    -------
    float
        About 1 to min(n, d), a plain number; NaN for an embedding of zeros.

    Raises
    ------
    ValueError
        As the other measures.

    References
    ----------
    Garrido et al., RankMe, ICML 2023 (arXiv 2210.02885).
    """
    embedding = as_embedding(Z)
    return rankme_of_decomposition(decomposed(scaled(embedding)[0]), min(embedding.shape))


def within_over_between(Z: ArrayLike, labels: ArrayLike) -> float:
    """Variance within classes over variance between them, tr(S_W) / tr(S_B): lower is better.

    Neural collapse drives it to 0: it is NC1 in its trace form, the paper's being tr(S_W S_B^+) / classes. S_B weights
    a class by its size, so that tr(S_W) + tr(S_B) is the variance.

    Parameters
    ----------
    Z, labels
        As for ``logme``.

    Returns
    -------
    float
        A plain number; NaN where all class means coincide.

    Raises
    ------
    ValueError
        As the other measures.

    References
    ----------
    Papyan, Han and Donoho, PNAS 117 (2020), NC1.
    """
    embedding = as_embedding(Z)
    return within_over_between_of_centred(centred(embedding)[0], as_classes(labels, len(embedding)))


def logme_of_decomposition(decomposition: Decomposition, classes: NDArray[np.int64]) -> float:
    squares, n = to_host(decomposition.squares), len(classes)
    sizes = np.bincount(classes).astype(np.float64)  # |y|^2 of the one-hot columns
    rank = len(squares)
    if rank == 0:
        return float(np.mean(-(np.log(2 * np.pi * sizes / n) + 1) / 2))
    projected = to_host(decomposition.class_sums(classes)) ** 2  # [classes, rank]
    outside = np.maximum(sizes - projected.sum(axis=1), 0)

    # The evidence a sample at the ratio alpha / beta, with the best beta = n / misfit for that ratio.
    def evidence(ratio: NDArray[np.float64], misfit: NDArray[np.float64]) -> NDArray[np.float64]:
        volume = np.log1p(squares / ratio[:, None]).sum(axis=1)
        return -(np.log(2 * np.pi * misfit / n) + 1 + volume / n) / 2

    def wants_more(ratios: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether MacKay's step from each class's ratio leads to a greater one, bool [classes]."""
        kept = squares / (squares + ratios[:, None])
        lost = ratios[:, None] / (squares + ratios[:, None])
        gamma = kept.sum(axis=1)
        free = n - rank + lost.sum(axis=1)  # n - gamma, without cancellation
        squared_weights = (projected * kept * lost).sum(axis=1) / ratios  # |w|^2
        residual = outside + (projected * lost**2).sum(axis=1)
        wants: NDArray[np.bool_] = gamma * residual > ratios * squared_weights * free
        return wants

    starts = squares.mean() * RATIOS
    # [starts, classes].
    misfits = outside + (starts[:, None] / (starts[:, None] + squares)) @ projected.T
    best = np.stack([evidence(starts, misfit) for misfit in misfits.T]).argmax(axis=1)
    low, high = (
        np.log(starts[np.maximum(best - 1, 0)]),
        np.log(starts[np.minimum(best + 1, len(starts) - 1)]),
    )
    while (high - low).max() > TOLERANCE:
        middle = (low + high) / 2
        more = wants_more(np.exp(middle))
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    ratios = np.exp((low + high) / 2)
    misfit = outside + (projected * (ratios[:, None] / (squares + ratios[:, None]))).sum(axis=1)
    return float(evidence(ratios, misfit).mean())


def h_score_of_decomposition(
    decomposition: Decomposition, d: int, classes: NDArray[np.int64]
) -> float:
    xp, values = namespace(decomposition.matrix), decomposition.matrix
    n = len(classes)
    variances = to_host(decomposition.squares) / n
    if not len(variances):
        return 0.0
    mean = variances.sum() / d
    spread = (variances**2).sum() / d - mean**2
    square_norms = to_host(xp.vecdot(values, values))
    mean_of_fourth_powers = (square_norms**2).sum() / n
    noise = (mean_of_fourth_powers - (variances**2).sum()) / (n * d)
    shrinkage = 0.0 if spread <= ROUNDING * mean**2 else float(np.clip(noise / spread, 0, 1))
    between = (to_host(decomposition.class_sums(classes)) ** 2 / np.bincount(classes)[:, None]).sum(
        axis=0
    )
    shrunk = (1 - shrinkage) * variances
    return float((shrunk * between / (shrunk + shrinkage * mean)).sum())


def transrate_of_decomposition(
    values: Array, decomposition: Decomposition, classes: NDArray[np.int64], exponent: int
) -> float:
    xp = namespace(values)

    def rate(squares: Array, n: int) -> float:
        in_units = times_power_of_two(
            xp.clip(squares, 0, None) / (n * TRANSRATE_EPSILON), 2 * exponent
        )
        return float(xp.sum(xp.log1p(in_units))) / 2

    conditional = 0.0
    for of_class in range(int(classes.max()) + 1):
        rows = rows_of(values, np.flatnonzero(classes == of_class))
        gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
        conditional += (
            rows.shape[0] / values.shape[0] * rate(xp.linalg.eigvalsh(gram), rows.shape[0])
        )
    return rate(decomposition.squares, values.shape[0]) - conditional


def rankme_of_decomposition(decomposition: Decomposition, size: int) -> float:
    singular = np.zeros(size)
    singular[: decomposition.squares.shape[0]] = np.sqrt(to_host(decomposition.squares))
    if not singular.any():
        return float("nan")
    shares = singular / singular.sum() + RANKME_EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))


def within_over_between_of_centred(values: Array, classes: NDArray[np.int64]) -> float:
    xp = namespace(values)
    sizes = np.bincount(classes).astype(np.float64)
    means = group_means(values, classes)
    deviations = values - rows_of(means, classes)
    within = float(xp.sum(deviations * deviations))
    between = float(xp.sum(beside(sizes, means) * xp.vecdot(means, means)))
    return within / between if between > ROUNDING * (within + between) else float("nan")
