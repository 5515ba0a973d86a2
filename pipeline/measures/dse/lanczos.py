"""The entropy of a diffusion spectrum without its eigenvalues: stochastic Lanczos quadrature with a deflated top.

The entropy of p = |lambda|^t / S is log2 S - T / S with the traces S of lambda^t and T of lambda^t log2 lambda^t. Ritz
vectors hold the top of the spectrum (Hutch++: Meyer et al., arXiv 2010.09649), and the trace over the rest is the mean
of z' f(A) z over random vectors z orthogonal to them. Few vectors and few products with the matrix are enough:

- Each z' f(A) z is a Gauss quadrature from some steps of Lanczos (Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38,
  2017). Ritz vectors are projected out in every step; otherwise the part of the top that they miss would grow until
  Lanczos found the top again, which takes three quarters of the steps.
- So A is replaced by its two diagonal blocks, of Ritz vectors and of the rest. The contribution of the block between
  them comes from perturbation theory, to second order, with the same random vectors; see `_Krylov.coupled`.
- The parabola nearest to f on the spectrum, whose trace is known exactly, is subtracted.
- Gauss's rule, and Radau's with a node at 0, bound the quadrature from both sides, because the derivatives of
  lambda log lambda alternate in sign.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array, as_array_like, namespace, to_host
from ..core.exact_or_estimated import Estimate, Precision
from ..core.hits import Z95
from .operator import HELD_BYTES, DiffusionOperator, Operator

MIN_DEFLATED, MOST_DEFLATED = 23, 64  # Ritz vectors of the top of the spectrum
MAX_DEFLATED = 320
"""Most Ritz vectors where every product recomputes the kernel: they then cost little, and save products if there
is one for every dimension of the points and ``_BEYOND_LINEAR`` more: many spectra have a step there."""
_BEYOND_LINEAR = 48
_POINTS_EACH = 16  # least points per Ritz vector
# How much longer the part of a sketch in the span of the points is than its random part.
_LINEAR = 10.0
PROBES = 16  # random vectors at first
MORE_PROBES = 96  # at most added at a time
MAX_PROBES = 1024
COVERAGE = 0.997
"""Coverage of 1.96 standard errors: few vectors leave their spread uncertain; all of twenty seeds should be covered."""
# Numbers of Lanczos steps after which the bounds are compared.
STEPS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 21, 24, 28, 32, 38, 44, 52, 60, 72, 84, 96)
_QUADRATURE = 0.4  # of the tolerance: the bounds must agree to this
_COUPLING = 0.5  # of the tolerance: Ritz vectors are recomputed until the coupling's error is below
_MAX_ROUNDS = 6
_BEYOND_SECOND_ORDER = 0.1, 0.6
"""Share of the coupling that second order may miss, at t = 1 and at other t: found by trials, not derived."""
_ROUNDING = 2  # times the noise, estimated from some rows: shorter vectors count as rounding

_SAME = 1e-5  # of a number: smaller differences count as 0

Values = NDArray[np.float64]


@dataclass
class _Top:
    """Ritz vectors of the top of the spectrum, their values, and the residuals of their products with the matrix."""

    basis: Array  # [n, 1 + s], the vector of the largest eigenvalue, which products leave out, and Ritz vectors
    values: Values  # [s]
    residuals: Values  # [s, s], the scalar products of the residuals A v - value v
    noise: Values  # [s], how far products with them are off

    @classmethod
    def of(cls, operator: Operator, basis: Array, product: Array) -> "_Top":
        """Return Ritz vectors from an orthonormal basis [n, 1 + s] and the product [n, s] with all but its first."""
        xp = namespace(basis)
        inner = to_host(basis[:, 1:].T @ product)
        values, rotation = np.linalg.eigh((inner + inner.T) / 2)
        vectors, product = (
            part @ as_array_like(rotation, part) for part in (basis[:, 1:], product)
        )
        noise = to_host(operator.noise(vectors, product))
        product -= vectors * as_array_like(values, product)
        residuals = to_host(product.T @ product)
        basis = xp.concat([basis[:, :1], vectors], axis=1)
        return cls(basis, np.clip(values, 0, 1), residuals, noise)

    def __len__(self) -> int:
        return len(self.values)

    def moments(self) -> Values:
        """Return the traces of the powers 0, 1 and 2 of the matrix minus those over the rest: [3]."""
        squares = np.sum(self.values**2) + 2 * np.trace(self.residuals)
        return np.array([len(self), np.sum(self.values), squares])

    def fourth_order(self) -> float:
        """Return the share of the coupling that second order misses, for a function such as lambda log lambda."""
        values = np.maximum(self.values, np.maximum(self.noise, np.finfo(np.float64).tiny))
        second = np.sum(np.diag(self.residuals) / values)
        pairs = (self.residuals / values[:, None]) * (self.residuals / values)
        return float(np.sum(pairs / np.sqrt(np.outer(values, values))) / second) if second else 0.0


@dataclass
class _Krylov:
    """Lanczos recurrences of a block of start vectors, side by side: their coefficients, and the last two vectors.

    The vectors are orthogonal to the Ritz vectors, which are projected out of each product.
    """

    squared_norms: Values  # [k] of the start vectors
    noise: Values  # [k], how far products with unit vectors are off; known after the first step
    last: Array  # [n, k], where the embedding is
    current: Array  # [n, k], unit columns
    diagonal: list[Values]  # each [k]
    off_diagonal: list[Values]
    couplings: list[Values]  # each [s, k], the products' share of each Ritz vector

    @classmethod
    def of(cls, starts: Array) -> "_Krylov":
        xp = namespace(starts)
        norms = xp.linalg.vector_norm(starts, axis=0)
        norms = xp.clip(norms, float(np.finfo(np.float64).tiny), None)
        squared = to_host(norms) ** 2
        return cls(
            squared, np.zeros_like(squared), xp.zeros_like(starts), starts / norms, [], [], []
        )

    def step(self, operator: Operator, top: _Top) -> None:
        """Do one more step."""
        self.advance(operator, top, operator.times(self.current))

    def advance(self, operator: Operator, top: _Top, new: Array) -> None:
        """Do one more step, given the product with the current vectors, which is overwritten.

        Lost orthogonality duplicates nodes and divides their weights among them, which does not change sums.
        """
        xp, current, ritz = namespace(self.current), self.current, top.basis[:, 1:]
        if not self.diagonal:
            self.noise = to_host(operator.noise(current, new))
        coupling = ritz.T @ new
        self.couplings.append(to_host(coupling))
        new -= ritz @ coupling
        if self.off_diagonal:
            new -= as_array_like(self.off_diagonal[-1], new) * self.last
        alpha = xp.sum(current * new, axis=0)
        new -= alpha * current
        beta = to_host(xp.linalg.vector_norm(new, axis=0))
        # A vector no longer than a product's rounding is rounding only: the vectors so far span all that the start
        # vector can reach, and its recurrence ends. Zeros from here on add nodes without weight.
        goes_on = beta > _ROUNDING * self.noise
        beta = np.where(goes_on, beta, 0)
        scale = np.where(goes_on, 1 / np.where(goes_on, beta, 1), 0)
        self.last, self.current = current, new * as_array_like(scale, new)
        self.diagonal.append(to_host(alpha))
        self.off_diagonal.append(beta)

    def coupled(self, top: _Top, t: float) -> Values:
        """Return what the block R between Ritz vectors and the rest adds to S and T, as each vector has it: [2, k].

        To second order this is the sum of R_ij^2 (f'(x_i) - f'(y_j)) / (x_i - y_j) over Ritz values x_i and the rest's
        eigenvalues y_j, or the trace of sum_i r_i r_i' h_i(B) with the rest B and h_i the quotient as a function of y.
        """
        matrices = self._matrices(np.array(self.diagonal).T, np.array(self.off_diagonal).T[:, :-1])
        nodes, vectors = np.linalg.eigh(matrices)  # [k, m], [k, m, m]
        along = np.array(self.couplings).transpose(2, 1, 0)  # [k, s, m]
        start = (
            along[:, :, 0] * self.squared_norms[:, None]
        )  # with z; a factor of its norm belongs to the next line
        along = (along @ vectors) * vectors[:, None, 0, :]
        low = self.noise[:, None, None]
        x = np.maximum(top.values[:, None], low)
        y = np.maximum(nodes[:, None, :], low)
        return np.array([np.einsum("ks,ksm,ksm->k", start, along, h) for h in _quotients(x, y, t)])

    @staticmethod
    def _matrices(diagonal: Values, off: Values) -> Values:
        """Return tridiagonal matrices [k, m, m] with only the lower triangle filled, the part that eigh reads."""
        k, m = diagonal.shape
        matrices = np.zeros((k, m, m))
        steps = np.arange(m)
        matrices[:, steps, steps] = diagonal
        matrices[:, steps[1:], steps[:-1]] = off
        return matrices

    def rules(self, radau: bool) -> tuple[Values, Values]:
        """Return nodes, at least 0, and weights, each [k, m], of Gauss's rule, or Radau's with a further node at 0."""
        diagonal, off = np.array(self.diagonal).T, np.array(self.off_diagonal).T  # [k, m]
        if radau:
            diagonal = np.column_stack([diagonal, self._radau(diagonal, off)])
        else:
            off = off[:, :-1]
        nodes, vectors = np.linalg.eigh(self._matrices(diagonal, off))
        return np.clip(nodes, 0, 1), vectors[:, 0, :] ** 2 * self.squared_norms[:, None]

    def _radau(self, diagonal: Values, off: Values) -> Values:
        """Return the last diagonal entries [k] that make 0 a node.

        Rounding makes eigenvalues as small as minus the noise. Where one shows, the node is at minus the noise instead.
        """
        lasts, least_pivots = [], []
        floor = self.noise**2  # of a pivot, which only rounding can make smaller
        for node in (np.zeros_like(self.noise), -self.noise):
            pivots = least = diagonal[:, 0] - node
            for step in range(1, diagonal.shape[1]):
                pivots = (
                    diagonal[:, step] - node - off[:, step - 1] ** 2 / np.maximum(pivots, floor)
                )
                least = np.minimum(least, pivots)
            lasts.append(np.clip(node + off[:, -1] ** 2 / np.maximum(pivots, floor), node, 1))
            least_pivots.append(least)
        return np.where(least_pivots[0] > self.noise, *lasts)


def spectral_entropy_by_lanczos(
    Z: Array,
    sigma: float,
    t: float,
    tolerance: float,
    seed: int,
    held_bytes: int = HELD_BYTES,
    precision: Precision | None = None,
) -> Estimate:
    """Return the entropy, in bits, of the diffusion spectrum of a validated embedding [n, d], n > 512, and its error.

    Ritz vectors are recomputed until the part of their coupling that second order misses is within half the tolerance;
    steps are added until the quadrature's bounds agree to half of it; then vectors are added, as many as the spread so
    far requires, until the standard error of all these and of rounding is within the tolerance. After 96 steps or 1,024
    vectors it is returned as it is. Tiles of the kernel beyond ``held_bytes`` are recomputed for each step, in time
    n^2 d; the rest takes n^2 times the vectors. Products are in float32, or in float64 if float32's rounding makes up
    half the tolerance or more, or if t is below 1, which amplifies small eigenvalues. ``precision`` forces one.
    """
    chosen: Precision = precision or ("float32" if t >= 1 else "float64")
    generator = np.random.default_rng(seed)
    operator = DiffusionOperator(Z, sigma, chosen, held_bytes)
    may_be_coarse = chosen == "float32" and precision is None
    estimate = entropy_by_lanczos(
        operator, t, tolerance, generator, _sketch(Z, generator), may_be_coarse
    )
    if estimate is None:
        return spectral_entropy_by_lanczos(Z, sigma, t, tolerance, seed, held_bytes, "float64")
    return estimate


def _sketch(Z: Array, generator: np.random.Generator) -> Array:
    """Return vectors [n, s] that are largely in the top of the spectrum of an embedding's kernel.

    At a sigma as large as the distances the kernel is nearly linear, so they are random combinations of the points'
    dimensions, plus a random part, so that no direction is missing.
    """
    xp, (n, d) = namespace(Z), Z.shape
    is_held, wide = 2 * n * n <= HELD_BYTES, d + _BEYOND_LINEAR
    most = MOST_DEFLATED if is_held or wide > MAX_DEFLATED else max(wide, MOST_DEFLATED)
    count = max(MIN_DEFLATED, min(most, n // _POINTS_EACH))
    sketch = as_array_like(generator.standard_normal((n, count)), Z)
    mixture = as_array_like(generator.standard_normal((d, count)), Z)
    largest = max(float(xp.max(Z)), -float(xp.min(Z)))
    if largest > 0:
        linear = Z @ (mixture / largest)
        linear -= xp.mean(linear, axis=0)
        length = float(xp.sqrt(xp.mean(linear * linear)))
        if length > 0:
            sketch += linear * (_LINEAR / length)
    return sketch


def random_sketch(n: int, generator: np.random.Generator) -> Values:
    """Return vectors [n, s] of random directions."""
    return generator.standard_normal((n, MIN_DEFLATED))


def entropy_by_lanczos(
    operator: Operator,
    t: float,
    tolerance: float,
    generator: np.random.Generator,
    sketch: Array,
    may_be_coarse: bool = False,
) -> Estimate | None:
    """Estimate the entropy of an operator's spectrum to the power t; Ritz vectors are from the product with a sketch.

    Return None if rounding makes up half the tolerance or more and ``may_be_coarse``: a finer operator is available.
    """
    basis = operator.normalise(sketch)
    del sketch  # 128 MB for 50,000 points
    xp = namespace(basis)

    def probes(count: int) -> Array:
        signs = as_array_like(generator.choice([-1.0, 1.0], size=(operator.n, count)), basis)
        return signs - basis @ (basis.T @ signs)

    for last_round in [False] * (_MAX_ROUNDS - 1) + [True]:
        krylov = _Krylov.of(probes(PROBES))
        product = operator.times(xp.concat([basis[:, 1:], krylov.current], axis=1))
        of_ritz, of_probes = product[:, :-PROBES], product[:, -PROBES:]
        top = _Top.of(operator, basis, of_ritz)
        krylov.advance(operator, top, of_probes)
        coupling = _TraceEstimate(krylov, False, operator, top, t).coupling_error()
        if last_round or coupling <= _COUPLING * tolerance:
            break
        basis = xp.linalg.qr(xp.concat([basis[:, :1], of_ritz], axis=1)).Q
    basis = top.basis
    del product, of_ritz, of_probes
    for steps in STEPS:
        while len(krylov.diagonal) < steps:
            krylov.step(operator, top)
        gauss, radau = (_TraceEstimate(krylov, side, operator, top, t) for side in (False, True))
        quadrature = gauss.distance(radau) / 2
        if quadrature <= _QUADRATURE * tolerance:
            break
    while True:
        rounding = gauss.rounding()
        if rounding >= tolerance / 2 and may_be_coarse:
            return None
        value = (gauss.entropy() + radau.entropy()) / 2
        # Errors that more probes do not reduce.
        fixed = float(np.hypot(np.hypot(quadrature, rounding), gauss.coupling_error()))
        error = float(np.hypot(gauss.standard_error(), fixed))
        if error <= tolerance or fixed >= tolerance or gauss.count >= MAX_PROBES:
            return Estimate(value, error, "lanczos")
        more = _Krylov.of(
            probes(_probes_needed(gauss.count, gauss.standard_error(), tolerance, fixed))
        )
        while len(more.diagonal) < steps:
            more.step(operator, top)
        gauss.add(more)
        radau.add(more)


def _probes_needed(count: int, error: float, tolerance: float, fixed: float) -> int:
    """Return how many more vectors bring the error to nine tenths of what the tolerance leaves for it."""
    left = 0.9 * np.sqrt(tolerance**2 - fixed**2)
    needed = int(np.ceil(count * (error / left) ** 2)) - count
    return int(np.clip(needed, 8, min(MORE_PROBES, MAX_PROBES - count)))


class _TraceEstimate:
    """Sums over the Ritz values, the rules of the probes, and the coupling of both."""

    def __init__(
        self, krylov: _Krylov, radau: bool, operator: Operator, top: _Top, t: float
    ) -> None:
        self.t, self._radau, self._top = t, radau, top
        self._nodes, self._weights = krylov.rules(radau)
        self._noise, self._coupled = krylov.noise, krylov.coupled(top, t)
        self._inner = np.array([np.sum(f) for f in _functions(top.values, t)])  # [2]
        moments = np.array([operator.n - 1, operator.trace, operator.squared_norm])
        self._moments = moments - top.moments()
        trace_error = np.hypot(operator.trace_error, np.linalg.norm(top.noise))
        squared_norm_error = operator.squared_norm_error(np.sqrt(np.mean(self._noise**2)))
        self._moment_errors = np.array([0, trace_error, squared_norm_error])
        self._sample()

    @property
    def count(self) -> int:
        """Number of probes so far."""
        return len(self._nodes)

    def add(self, krylov: _Krylov) -> None:
        """Add further probes."""
        nodes, weights = krylov.rules(self._radau)
        self._nodes, self._weights = (
            np.vstack([self._nodes, nodes]),
            np.vstack([self._weights, weights]),
        )
        self._noise = np.concatenate([self._noise, krylov.noise])
        self._coupled = np.hstack([self._coupled, krylov.coupled(self._top, self.t)])
        self._sample()

    def _sample(self) -> None:
        """Compute S and T of each probe, [2, probes].

        The parabola minimises the variance of the mean: with g the rest of f after the parabola, a probe's variance is
        2 |g(A)|^2, and the sum over all nodes of weight times g^2 is |g(A)|^2 times the number of probes. The errors of
        the moments, times the parabola, are added. Where all nodes are rounding, these errors decide.
        """
        # So that squares of small numbers do not underflow.
        scale = max(self._nodes.max(), self._noise.max())
        units = scale ** np.arange(3)
        powers = (self._nodes[..., None] / scale) ** np.arange(3)  # [probes, m, 3]
        root = np.sqrt(self._weights)
        penalty = np.diag(self.count / np.sqrt(2) * self._moment_errors / units)
        design = np.vstack([(root[..., None] * powers).reshape(-1, 3), penalty])
        samples, parabolas = [], []
        for f in _functions(self._nodes, self.t):
            wanted = np.concatenate([(root * f).ravel(), np.zeros(3)])
            parabola, *_ = np.linalg.lstsq(design, wanted, rcond=None)
            rest = ((f - powers @ parabola) * self._weights).sum(axis=1)
            samples.append(rest + parabola @ (self._moments / units))
            parabolas.append(parabola / units)
        self._samples = np.array(samples) + self._coupled
        self._parabolas = np.array(parabolas)

    def traces(self) -> Values:
        """Return S and T, [2], including the largest eigenvalue, 1."""
        return np.array([1, 0]) + self._inner + self._samples.mean(axis=1)

    def entropy(self) -> float:
        """Return the entropy in bits."""
        return _entropy(*self.traces())

    def _slopes(self) -> Values:
        """Return the derivatives of the entropy by S and T."""
        S, T = self.traces()
        return np.array([1 / (np.log(2) * S) + T / S**2, -1 / S])

    def standard_error(self) -> float:
        """Return the entropy's standard error from the spread over probes; 1.96 of it cover ``COVERAGE`` (Student)."""
        from scipy.special import stdtrit  # imported here: it takes a fifth of a second

        free = self.count - 3
        spread = (self._slopes() @ self._samples).std(ddof=3)
        return float(spread / np.sqrt(self.count) * stdtrit(free, (1 + COVERAGE) / 2) / Z95)

    def coupling_error(self) -> float:
        """Return how far the coupling may be off beyond second order, in bits."""
        coupling = abs(float(self._slopes() @ self._coupled.mean(axis=1)))
        least = _BEYOND_SECOND_ORDER[self.t != 1]
        return coupling * max(self._top.fourth_order(), least)

    def rounding(self) -> float:
        """Return how far rounding may move the entropy, in bits.

        The parabola's part does not depend on the products, because its moments are known from elsewhere; the errors
        of these moments are added.
        """
        parabola = self._slopes() @ self._parabolas
        of_moments = np.linalg.norm(parabola * self._moment_errors)
        of_probes = self._moved(self._nodes, self._weights, self._noise, parabola) / self.count
        values = self._top.values[:, None]
        of_deflated = self._moved(values, np.ones_like(values), self._top.noise, np.zeros(3))
        return float(of_moments + of_probes + of_deflated)

    def _moved(self, nodes: Values, weights: Values, noise: Values, parabola: Values) -> float:
        """Return how far the products' noise may move the sum of a rule, minus a parabola.

        A product that is off by the noise couples a direction of eigenvalue x to another one by that amount. In the
        matrix [[x, noise], [noise, 0]] that direction has two eigenvalues: raised = x / 2 + sqrt(x^2 / 4 + noise^2)
        with a weight of raised^2 / (raised^2 + noise^2), and one below 0, which counts as 0, with the rest of the
        weight. So a direction far above the noise hardly moves, and half of one at 0 moves to the noise. A node has
        been raised already: its x is at least node - noise^2 / node.
        """

        def height(x: Values) -> Values:
            S, T = _functions(x, self.t)
            slope_S, slope_T = self._slopes()
            return slope_S * S + slope_T * T - np.polynomial.polynomial.polyval(x, parabola)

        def move(x: Values) -> Values:
            raised = x / 2 + np.sqrt(x**2 / 4 + noise**2)
            share = raised**2 / (raised**2 + noise**2)
            return np.abs(share * height(raised) + (1 - share) * at_zero - height(x))

        noise = noise[:, None]
        at_zero = height(np.zeros(1))
        lowest = np.maximum(nodes - noise**2 / np.maximum(nodes, noise), 0)
        moves = [move(x) for x in (lowest, (lowest + nodes) / 2, nodes)]
        return float(np.sum(weights * np.max(moves, axis=0)))

    def distance(self, other: "_TraceEstimate") -> float:
        """Return how far apart the entropies of two rules are, in bits, in the worst case of both traces."""
        return float(np.abs(self._slopes()) @ np.abs(self.traces() - other.traces()))


def _functions(nodes: Values, t: float) -> tuple[Values, Values]:
    """Return lambda^t and lambda^t log2 lambda^t, which are 0 at 0."""
    with np.errstate(under="ignore"):
        powers = nodes**t
    return powers, powers * np.log2(np.where(powers > 0, powers, 1))


def _quotients(x: Values, y: Values, t: float) -> tuple[Values, Values]:
    """Return (f'(x) - f'(y)) / (x - y) for both functions of positive numbers; the second derivative where x is y."""
    difference = x - y
    near = np.abs(difference) < _SAME * x
    middle, difference = (x + y) / 2, np.where(near, 1, difference)
    of_S, of_T = (a - b for a, b in zip(_slopes(x, t), _slopes(y, t), strict=True))
    with np.errstate(under="ignore"):
        curve = t * (t - 1) * middle ** (t - 2)
        bend = curve * (t * np.log2(middle) + 1 / np.log(2)) + t**2 * middle ** (t - 2) / np.log(2)
    return np.where(near, curve, of_S / difference), np.where(near, bend, of_T / difference)


def _slopes(x: Values, t: float) -> tuple[Values, Values]:
    """Return the derivatives of both functions."""
    with np.errstate(under="ignore"):
        slope = t * x ** (t - 1)
    return slope, slope * (t * np.log2(x) + 1 / np.log(2))


def _entropy(S: float, T: float) -> float:
    return float(np.log2(S) - T / S)
