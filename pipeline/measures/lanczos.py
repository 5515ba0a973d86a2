"""The entropy of a diffusion spectrum without its eigenvalues: stochastic Lanczos quadrature with a deflated top.

The entropy of p = |lambda|^t / S is log2 S - T / S with the traces S of lambda^t and T of lambda^t log2 lambda^t. A
trace of f(A) is the exact one on a subspace that holds the top of the spectrum, plus the mean of z' f(A) z over random
vectors z orthogonal to it (Hutch++: Meyer et al., arXiv 2010.09649). Three things make few vectors enough: each z' f(A)
z comes from some steps of Lanczos as a Gauss quadrature (Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 2017);
the parabola nearest to f on the spectrum is subtracted, whose trace is known exactly; and Gauss's rule, and Radau's
with a node at 0, bound the quadrature from both sides, for the derivatives of lambda log lambda alternate in sign.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .estimate import Estimate
from .operator import HELD_BYTES, DiffusionOperator

DEFLATED = 32  # directions of the top of the spectrum that are taken exactly
PROBES = 64  # random vectors at a time
MOST_PROBES = 1024
STEPS = (6, 8, 10, 12, 15, 19, 24, 30, 38, 48, 60, 76, 96)  # of Lanczos, after which the bounds are looked at
_NEGLIGIBLE = 0.1  # of the tolerance

Values = NDArray[np.float64]


@dataclass
class _Krylov:
    """Lanczos recurrences of a block of start vectors, side by side: their coefficients, and the last two vectors."""

    squared_norms: Values  # [k] of the start vectors
    last: Values  # [n, k]
    current: Values  # [n, k], unit columns
    diagonal: list[Values]  # each [k]
    off_diagonal: list[Values]

    @classmethod
    def of(cls, starts: Values) -> "_Krylov":
        norms = np.linalg.norm(starts, axis=0)
        return cls(norms**2, np.zeros_like(starts), starts / norms, [], [])

    def step(self, operator: DiffusionOperator) -> None:
        """One more step. Lost orthogonality repeats nodes and shares out their weights, which sums do not notice."""
        new = operator.times(self.current)
        if self.off_diagonal:
            new -= self.off_diagonal[-1] * self.last
        alpha = np.einsum("nk,nk->k", self.current, new)
        new -= alpha * self.current
        beta = np.linalg.norm(new, axis=0)
        self.last, self.current = self.current, new / np.where(beta > 0, beta, 1)
        self.diagonal.append(alpha)
        self.off_diagonal.append(beta)

    def rules(self, radau: bool) -> tuple[Values, Values]:
        """Nodes, at least 0, and weights, each [k, m], of Gauss's rule, or of Radau's with a further node at 0."""
        diagonal, off = np.array(self.diagonal).T, np.array(self.off_diagonal).T  # [k, m]
        if radau:
            pivots = diagonal[:, 0].copy()
            for step in range(1, diagonal.shape[1]):
                pivots = diagonal[:, step] - off[:, step - 1] ** 2 / np.maximum(pivots, np.finfo(np.float32).tiny)
            last = off[:, -1] ** 2 / np.maximum(pivots, np.finfo(np.float32).tiny)
            diagonal = np.column_stack([diagonal, np.clip(last, 0, 1)])
        else:
            off = off[:, :-1]
        k, m = diagonal.shape
        matrices = np.zeros((k, m, m))
        steps = np.arange(m)
        matrices[:, steps, steps] = diagonal
        matrices[:, steps[1:], steps[:-1]] = off  # eigh reads the lower triangle
        nodes, vectors = np.linalg.eigh(matrices)
        return np.clip(nodes, 0, 1), vectors[:, 0, :] ** 2 * self.squared_norms[:, None]


def spectral_entropy_by_lanczos(
    Z: Values, sigma: float, t: float, tolerance: float, seed: int, held_bytes: int = HELD_BYTES
) -> Estimate:
    """Entropy, in bits, of the diffusion spectrum of a validated embedding [n, d], n over 512, and its standard error.

    Steps are added until the quadrature's bounds say less than the spread over the random vectors, then vectors until
    the standard error, of both together, is within the tolerance; after 96 steps or 1,024 vectors it is returned as it
    is. Time grows with n^2 d times the steps where the kernel has more than ``held_bytes`` and is recomputed for each,
    else with n^2 times the vectors. Products are in float32; for t below 1, which makes much of small eigenvalues, in
    float64.
    """
    generator = np.random.default_rng(seed)
    operator = DiffusionOperator(Z, sigma, "float32" if t >= 1 else "float64", held_bytes)
    basis = operator.normalise(generator.standard_normal((operator.n, DEFLATED - 1)))

    def probes() -> Values:
        signs = generator.choice([-1.0, 1.0], size=(operator.n, PROBES))
        return signs - basis @ (basis.T @ signs)

    krylov = _Krylov.of(np.column_stack([basis[:, 1:], probes()]))
    for steps in STEPS:
        while len(krylov.diagonal) < steps:
            krylov.step(operator)
        moments = np.array([operator.n - 1, operator.trace, operator.squared_norm])
        gauss, radau = (_Tally(*krylov.rules(side), basis.shape[1] - 1, moments, t) for side in (False, True))
        quadrature = gauss.distance(radau) / 2
        if quadrature <= max(_NEGLIGIBLE * tolerance, min(tolerance, gauss.standard_error()) / 2):
            break
    while True:
        value = (gauss.entropy() + radau.entropy()) / 2
        error = float(np.hypot(gauss.standard_error(), quadrature))
        if error <= tolerance or quadrature >= tolerance or gauss.count >= MOST_PROBES:
            return Estimate(value, error, "lanczos")
        more = _Krylov.of(probes())
        while len(more.diagonal) < steps:
            more.step(operator)
        gauss.add(*more.rules(radau=False))
        radau.add(*more.rules(radau=True))


class _Tally:
    """What the rules of deflated directions and of probes add up to."""

    def __init__(self, nodes: Values, weights: Values, inner: int, moments: Values, t: float) -> None:
        self.t = t
        self._inner = _traces(nodes[:inner], weights[:inner], t)  # [2]
        known = np.array([np.sum(weights[:inner] * nodes[:inner] ** power) for power in range(3)])
        self._moments = moments - known  # of the spectrum outside of the deflated directions
        self._nodes, self._weights = nodes[inner:], weights[inner:]
        self._sample()

    @property
    def count(self) -> int:
        """Probes so far."""
        return len(self._nodes)

    def add(self, nodes: Values, weights: Values) -> None:
        """Further probes."""
        self._nodes, self._weights = np.vstack([self._nodes, nodes]), np.vstack([self._weights, weights])
        self._sample()

    def _sample(self) -> None:
        """Find S and T as each probe has them, [2, probes]."""
        powers = self._nodes[..., None] ** np.arange(3)  # [probes, m, 3]
        root = np.sqrt(self._weights)
        design, samples = (root[..., None] * powers).reshape(-1, 3), []
        for f in _functions(self._nodes, self.t):
            parabola, *_ = np.linalg.lstsq(design, (root * f).ravel(), rcond=None)
            samples.append(((f - powers @ parabola) * self._weights).sum(axis=1) + parabola @ self._moments)
        self._samples = np.array(samples)

    def traces(self) -> Values:
        """S and T, [2], with the largest eigenvalue, 1."""
        return np.array([1, 0]) + self._inner + self._samples.mean(axis=1)

    def entropy(self) -> float:
        """Bits."""
        return _entropy(*self.traces())

    def _slopes(self) -> Values:
        """Derivatives of the entropy by S and T."""
        S, T = self.traces()
        return np.array([1 / (np.log(2) * S) + T / S**2, -1 / S])

    def standard_error(self) -> float:
        """Of the entropy, from the spread over probes."""
        spread = (self._slopes() @ self._samples).std(ddof=3)
        return float(spread / np.sqrt(self.count))

    def distance(self, other: "_Tally") -> float:
        """How far apart the entropies of two rules are, in bits, both traces at their worst."""
        return float(np.abs(self._slopes()) @ np.abs(self.traces() - other.traces()))


def _functions(nodes: Values, t: float) -> tuple[Values, Values]:
    """lambda^t and lambda^t log2 lambda^t; 0 at 0."""
    with np.errstate(under="ignore"):
        powers = nodes**t
    return powers, powers * np.log2(np.where(powers > 0, powers, 1))


def _traces(nodes: Values, weights: Values, t: float) -> Values:
    return np.array([np.sum(weights * f) for f in _functions(np.abs(nodes), t)])


def _entropy(S: float, T: float) -> float:
    return float(np.log2(S) - T / S)
