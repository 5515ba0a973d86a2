"""Estimators of Shannon's mutual information to compare DSMI with: nearest neighbours (KSG) and MINE."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from ..measures.core.checks import as_classes, as_embedding_on_host

NEIGHBOURS = 3
MINE_WIDTH, MINE_STEPS, MINE_RATE = 64, 200, 2e-3
_AVERAGED = 0.01  # weight of the newest step in MINE's running mean of the partition function


def ksg_label_information(Z: ArrayLike, labels: ArrayLike, k: int = NEIGHBOURS) -> float:
    """Estimate the mutual information of a continuous variable and labels from distances to neighbours, in bits.

    Ross's form of the nearest-neighbour estimator: the distance to a point's k-th neighbour in its own class, and the
    number of points of all classes within it. Points alone in their class are left out. Distances are Euclidean, on
    scikit-learn's trees in few dimensions and without them in many, where trees save nothing.

    Parameters
    ----------
    Z : real [n, d]
    labels : [n]
    k
        Neighbours; fewer in classes that are smaller.

    Returns
    -------
    float
        Bits.

    References
    ----------
    Ross, PLoS ONE 9 (2014) e87357; scikit-learn's ``mutual_info_classif`` is the same for one column at a time.
    """
    from sklearn.neighbors import NearestNeighbors

    Z = as_embedding_on_host(Z)
    classes = as_classes(labels, len(Z))
    sizes = np.bincount(classes)
    kept = sizes[classes] > 1
    Z, classes = Z[kept], classes[kept]
    radius, neighbours = np.empty(len(Z)), np.empty(len(Z))
    for of_class in np.flatnonzero(sizes > 1):
        mine = np.flatnonzero(classes == of_class)
        near = min(k, len(mine) - 1)
        distances, _ = NearestNeighbors(n_neighbors=near).fit(Z[mine]).kneighbors()
        radius[mine] = distances[:, -1]
        neighbours[mine] = near
    within = _counts_within(Z, radius)
    nats = digamma(len(Z)) + np.mean(
        digamma(neighbours) - digamma(sizes[classes]) - digamma(within)
    )
    return float(nats / np.log(2))


def _counts_within(Z: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count the points that lie strictly within each point's radius, itself included: int64 [n]."""
    from sklearn.neighbors import KDTree

    if Z.shape[1] <= 15:
        counts = KDTree(Z).query_radius(Z, np.nextafter(radius, 0), count_only=True)
        return np.asarray(counts, dtype=np.int64)
    from sklearn.metrics import pairwise_distances

    distances = pairwise_distances(Z)
    np.fill_diagonal(distances, 0)
    # The k-th neighbour itself must not count because of rounding.
    return np.maximum((distances < radius[:, None] * (1 - 1e-9)).sum(axis=1), 1)


def mine_mutual_information(
    Z: ArrayLike, Y: ArrayLike, *, steps: int = MINE_STEPS, seed: int = 0
) -> float:
    """Estimate mutual information by a small network trained on the Donsker-Varadhan bound (MINE), in bits.

    T(z, y) has one hidden layer of 64 ReLU units and is trained on all samples at once by Adam, with the running mean
    of the partition function that corrects the gradient's bias. The value is the mean of the bound over the last tenth
    of the steps, on the training samples, as in the paper.

    Parameters
    ----------
    Z : real [n, d]
    Y : real [n, q]
        For labels, their one-hot columns.
    steps
        Optimiser steps.
    seed
        Seed of the weights and of the pairings; torch's own state stays as it is.

    Returns
    -------
    float
        Bits.

    References
    ----------
    Belghazi et al., Mutual information neural estimation, ICML 2018 (arXiv 1801.04062).
    """
    import torch

    from ..embedding.train import reproducible

    z, y = (
        torch.from_numpy(_for_network(as_embedding_on_host(V, name))).float()
        for V, name in ((Z, "Z"), (Y, "Y"))
    )
    bounds = []
    with reproducible(seed):
        of_z = torch.nn.Linear(z.shape[1], MINE_WIDTH)
        of_y = torch.nn.Linear(y.shape[1], MINE_WIDTH, bias=False)
        end = torch.nn.Linear(MINE_WIDTH, 1)
        layers = torch.nn.ModuleList([of_z, of_y, end])
        optimiser = torch.optim.Adam(layers.parameters(), lr=MINE_RATE)
        average = None
        for _ in range(steps):
            hidden_z, hidden_y = of_z(z), of_y(y)  # shared by true and shuffled pairs
            joint = end(torch.relu(hidden_z + hidden_y)).mean()
            shuffled = end(torch.relu(hidden_z + hidden_y[torch.randperm(len(y))])).squeeze(1)
            partition = shuffled.exp().mean()
            average = (
                partition.detach()
                if average is None
                else torch.lerp(average, partition.detach(), _AVERAGED)
            )
            bounds.append(float((joint - partition.log()).detach()))
            optimiser.zero_grad()
            (partition / average - joint).backward()
            optimiser.step()
    return float(np.mean(bounds[-max(1, steps // 10) :]) / np.log(2))


def _for_network(V: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardise columns; if there are more columns than rows, return the coordinates in the space of the rows.

    A linear layer sees the same in both. But with 20,000 columns, one step of Adam moves each hidden unit by forty
    times its scale: training diverges, and the estimate is meaningless.
    """
    n, d = V.shape
    spread = V.std(axis=0)
    V = (V - V.mean(axis=0)) / np.where(spread > 0, spread, 1)
    if d < n:
        return V
    values, vectors = np.linalg.eigh(V @ V.T)  # V V^T = U S^2 U^T, and U S are the coordinates
    spanned = vectors[:, 1:] * np.sqrt(np.maximum(values[1:], 0))
    return np.asarray(spanned * np.sqrt((n - 1) / d))
