"""NESum: the sum of the covariance's eigenvalues in units of the largest."""

from ..core.arrays import namespace
from ..core.context import MeasureContext
from ..core.registry import score


@score("nesum", task="decomposition")
def nesum(context: MeasureContext) -> float:
    """Return the normalised eigenvalue sum of the covariance, sum l_i / l_1 with the largest eigenvalue l_1.

    From 1 (all variance in one direction) to min(n - 1, d) (equal variance in every direction);
    undefined for a constant embedding.

    References
    ----------
    He and Ozay, Exploring the gap between collapsed and whitened features in self-supervised learning, ICML 2022.
    """
    decomposition = context.decomposition
    decomposition.require_variance()
    # Ascending squared singular values, proportional to the eigenvalues.
    squares = decomposition.squares
    return float(namespace(squares).sum(squares) / squares[-1])
