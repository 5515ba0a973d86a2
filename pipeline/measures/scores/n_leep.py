"""N-LEEP: the log likelihood of the labels under a Gaussian mixture fitted without them."""

import warnings

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import count_different, group_sums, to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.registry import score

ENERGY = 0.8  # share of the variance that the mixture sees
COMPONENTS = 5  # per class
MIN_POINTS = 2  # points per component: with one, each point would predict its own class
DIGITS = 9  # rows equal to this many decimals, after scaling to unit spread, count as one point


@score("n_leep", task="decomposition")
def n_leep(context: MeasureContext) -> float:
    """Return the mean log likelihood of the labels under a Gaussian mixture's components: nats per sample, at most 0.

    The mixture has five Gaussians per class, sees no label, and is fitted to the principal components with 80% of the
    variance. A sample x with component shares p(z | x) has label y with probability sum_z p(y | z) p(z | x), where
    p(y | z) is the share of label y in component z over all samples, this one included.

    Covariances are diagonal, in the principal components: full ones, as in published code, have more parameters than
    a component has points, and take over ten seconds for 3000 points in 386 dimensions. The embedding's scale does not
    matter. Undefined if there are fewer than ten distinct points per class, over all classes together.

    References
    ----------
    Li et al., Ranking neural checkpoints, CVPR 2021 (arXiv 2011.11200); Nguyen et al., LEEP, ICML 2020
    (arXiv 2002.12462); scikit-learn's ``GaussianMixture``.
    """
    return float(log_likelihoods(context).mean())


def log_likelihoods(context: MeasureContext) -> NDArray[np.float64]:
    """Return the log likelihood of each sample's label in nats, float64 [n]."""
    classes = context.classes
    shares = _component_shares(context)
    by_class = group_sums(shares, classes)
    totals = by_class.sum(axis=0)
    # A component without points, because their shares underflow, predicts nothing.
    label_shares = np.divide(by_class, totals, out=np.zeros_like(by_class), where=totals > 0)
    likelihoods = np.einsum("nz,nz->n", shares, label_shares[classes])
    return np.log(np.minimum(likelihoods, 1))  # rounding may exceed 1


def _component_shares(context: MeasureContext) -> NDArray[np.float64]:
    """Return the shares p(z | x) of each sample in the mixture's components, float64 [n, components]."""
    from sklearn.exceptions import ConvergenceWarning  # imported here: scikit-learn takes a second
    from sklearn.mixture import GaussianMixture

    decomposition = context.decomposition
    decomposition.require_variance()
    count = COMPONENTS * (int(context.classes.max()) + 1)
    variances = to_host(decomposition.squares)[::-1]
    kept = int(np.searchsorted(np.cumsum(variances), ENERGY * variances.sum())) + 1
    points = to_host(decomposition.components[:, -kept:])[:, ::-1].copy()
    points /= np.sqrt((points**2).mean())  # the mixture adds 1e-6 to variances
    different, fewest = count_different(points, DIGITS), MIN_POINTS * count
    if different < fewest:
        raise UndefinedScore(
            f"{different} different points, fewer than {fewest} for {count} Gaussians"
        )
    mixture = GaussianMixture(count, covariance_type="diag", random_state=context.settings.seed)
    with warnings.catch_warnings():
        # 100 steps are enough, converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(points)
    shares: NDArray[np.float64] = mixture.predict_proba(points)
    return shares
