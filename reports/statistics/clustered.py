"""Standard errors of least squares for rows that depend on each other within clusters, and their degrees of freedom.

Pure functions of arrays. With few or unequal clusters the usual clustered errors (CR1, G - 1 degrees of freedom) are
too small. CR3 is the jackknife: the spread of the coefficients when each cluster is left out. CR2 is milder: unbiased
for independent rows, and too small if large clusters have very similar rows. The degrees of freedom are Satterthwaite's
approximation.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from .bootstrap import LEVEL

Array = np.ndarray
Correction = Literal["CR2", "CR3"]
# A cluster that has all but this share of a direction of the design fixes it alone, with residuals of 0.
ALONE = 1e-8


@dataclass(frozen=True)
class ClusteredErrors:
    """For each coefficient [k]: standard error, Satterthwaite's degrees of freedom, p and 95% interval.

    NaN where one cluster alone fixes the coefficient, or no residual is left.
    """

    error: Array
    degrees: Array
    p: Array
    low: Array
    high: Array


def clustered_errors(
    design: Array, y: Array, cluster: Array, kind: Correction = "CR3"
) -> ClusteredErrors:
    r"""Compute clustered errors of ordinary least squares, with Satterthwaite's degrees of freedom.

    With the hat matrix H and the residuals e, cluster g's residuals become :math:`A_g e_g`, where
    :math:`A_g = (I - H_{gg})^{-1/2}` for CR2, and :math:`A_g = (I - H_{gg})^{-1} \sqrt{(G - 1) / G}` for CR3, which is
    the jackknife over clusters. For the coefficient c'b, the degrees of freedom are
    :math:`(\sum_g p_g'p_g)^2 / \sum_{g,h} (p_g'p_h)^2`, :math:`p_g = (I - H)_{\cdot g} A_g X_g (X'X)^{-1} c`.

    Parameters
    ----------
    design
        The predictors, with their constant, [n, k], of full rank.
    y
        What they predict, [n].
    cluster
        Each row's cluster, numbers from 0, [n].
    kind
        The correction of the residuals for leverage.

    References
    ----------
    Bell and McCaffrey (2002), Bias reduction in standard errors for linear regression with multi-stage samples.
    Pustejovsky and Tipton (2018), Small-sample methods for cluster-robust variance estimation and hypothesis testing
    in fixed effects models. Hansen (2025), Jackknife standard errors for clustered regression.
    """
    # In an orthonormal basis Q of the design H_gg = Q_g Q_g', and (I - Q_g Q_g')^a Q_g = Q_g (I - Q_g'Q_g)^a:
    # so only k x k matrices are decomposed, however large the clusters are.
    basis, triangle = np.linalg.qr(design)
    coordinates = basis.T @ y
    coefficients = np.linalg.solve(triangle, coordinates)
    # [k, contrast]: a coefficient is its contrast times the coordinates.
    contrasts = np.linalg.inv(triangle).T
    residual = y - basis @ coordinates
    leverage = _summed(basis[:, :, None] * basis[:, None, :], cluster)
    scores = _summed(basis * residual[:, None], cluster)
    corrected = _corrected(leverage, contrasts, kind)
    variance = (np.einsum("gkc,gk->gc", corrected, scores) ** 2).sum(axis=0)
    degrees = _degrees_of_freedom(leverage, corrected)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(variance > 0, np.sqrt(variance), np.nan)
        p = 2 * stats.t.sf(np.abs(coefficients) / error, degrees)
        half = stats.t.ppf(0.5 + LEVEL / 2, degrees) * error
    return ClusteredErrors(error, degrees, p, coefficients - half, coefficients + half)


def _summed(rows: Array, cluster: Array) -> Array:
    """Return sums of rows [n, ...] over each cluster: [g, ...]."""
    total = np.zeros((int(cluster.max()) + 1, *rows.shape[1:]))
    np.add.at(total, cluster, rows)
    return total


def _corrected(leverage: Array, contrasts: Array, kind: Correction) -> Array:
    """Return each cluster's correction times each contrast, [g, k, contrast]; NaN if one cluster alone fixes it."""
    clusters, predictors = leverage.shape[:2]
    eigenvalues, vectors = np.linalg.eigh(np.eye(predictors) - leverage)
    alone = eigenvalues <= ALONE
    kept = np.where(alone, 1, eigenvalues)
    power = 1 / np.sqrt(kept) if kind == "CR2" else np.sqrt((clusters - 1) / clusters) / kept
    along = vectors.transpose(0, 2, 1) @ contrasts
    share = np.abs(along) / np.linalg.norm(contrasts, axis=0)
    fixed = (alone[:, :, None] & (share > ALONE)).any(axis=(0, 1))
    return np.asarray(np.where(fixed, np.nan, vectors @ (power[:, :, None] * along)))


def _degrees_of_freedom(leverage: Array, corrected: Array) -> Array:
    """Return Satterthwaite's degrees of freedom of each contrast: [contrast]."""
    degrees = []
    for contrast in corrected.transpose(2, 0, 1):
        projected = np.einsum("gkl,gl->gk", leverage, contrast)
        products = np.diag((contrast * projected).sum(axis=1)) - projected @ projected.T  # p_g'p_h
        squares = float((products**2).sum())
        degrees.append(np.trace(products) ** 2 / squares if squares > 0 else np.nan)
    return np.array(degrees)
