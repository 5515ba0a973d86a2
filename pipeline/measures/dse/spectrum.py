"""The eigenvalues of an embedding's diffusion matrix (Liao et al., arXiv 2312.04823), and their entropy."""

from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array, as_float32, as_float64, is_on_host, namespace, to_host
from ..core.distances import row_blocks
from ..core.exact_or_estimated import Precision
from ..core.threads import in_threads, one_blas_thread
from .banded import banded, sum_of_x_log_x

ONE_THREAD = 4096
"""Rows of a float32 matrix up to which one thread solves it, in parallel with other work: two threads gain little, and
on a busy machine they wait for each other ten times as long as they compute."""

SMALL = 512  # matrices of up to this many rows are solved in stacks
BAND_FROM = 1024  # rows of a matrix above which a band is no slower than all eigenvalues
_ONE_BLAS_THREAD = 2048
"""Rows of a float64 matrix up to which one thread solves it: on a busy machine two take five times as long."""


def diffusion_eigenvalues(kernel: Array, *, precision: Precision = "float64") -> Array:
    """Return the eigenvalues of the diffusion matrix of a Gaussian kernel, ascending.

    With q the row sums of the kernel G, they are the eigenvalues of G_ij / sqrt(q_i q_j), a symmetric matrix with the
    spectrum of the Markov matrix G_ij / q_i; the largest is 1.

    Parameters
    ----------
    kernel : float64 [n, n]
        It is overwritten by the matrix.
    precision
        Precision of the eigensolver. In float32 the known eigenvector of the largest eigenvalue is removed first, so
        that rounding is relative to the other eigenvalues.

    Returns
    -------
    float64 [n]
    """
    if precision == "float64":
        normalise(kernel)
        with one_blas_thread() if kernel.shape[0] <= _ONE_BLAS_THREAD else nullcontext():
            return eigenvalues(kernel)
    return _narrow_eigenvalues(kernel)


def kernel_entropy(kernel: Array, t: float, *, precision: Precision = "float64") -> float:
    """Return the entropy, in bits, of the diffusion spectrum of a Gaussian kernel [n, n], which is overwritten.

    At t = 1, on the host, the entropy of a large matrix follows from a band, in half the time of its eigenvalues. NumPy
    and SciPy each have a BLAS there, whose threads would wait for each other, so this package's threads are used.
    """
    if t == 1 and is_on_host(kernel) and kernel.shape[0] > BAND_FROM:
        with one_blas_thread():
            return _entropy_by_band(kernel, precision)
    eigenvalues = diffusion_eigenvalues(kernel, precision=precision)
    return float(spectrum_entropy(eigenvalues[None, :], t)[0])


def _entropy_by_band(matrix: NDArray[np.float64], precision: Precision) -> float:
    """Return log2 S - T / S, with S the sum of the eigenvalues, which is the trace, and T that of x log2 x."""
    rest, norm = _without_the_largest(matrix)
    band = banded(matrix.astype(precision)).astype(np.float64)
    # The trace is known better than a float32 matrix has it: what rounding added to it is subtracted evenly.
    band[0] += (rest / norm - band[0].sum()) / band.shape[1]
    total = norm * sum_of_x_log_x(band, rest / norm, 1.0) + rest * float(np.log(norm))
    return float(np.log2(1 + rest) - total / np.log(2) / (1 + rest))


def _narrow_eigenvalues(matrix: Array) -> Array:
    """Return the float32 eigenvalues of the diffusion matrix of a kernel [n, n], which is overwritten."""
    xp = namespace(matrix)
    _, norm = _without_the_largest(matrix)
    values = xp.clip(as_float64(eigenvalues(as_float32(matrix))), 0, None) * norm
    values[0] = 1.0  # the largest, in place of the zero that its removal left
    return xp.sort(values)


def _without_the_largest(matrix: Array) -> tuple[float, float]:
    """Turn a kernel [n, n], in place, into its diffusion matrix without the eigenvalue 1, divided by its norm.

    Returns
    -------
    (float, float)
        The sum of the other eigenvalues, and the norm, by which they are divided so that small ones keep their digits.
    """
    xp = namespace(matrix)
    sums = xp.sum(matrix, axis=1)
    rest = max(float(xp.sum(1 / sums)) - 1, 0.0)
    roots = xp.sqrt(sums)
    top = roots / xp.linalg.vector_norm(roots)

    def deflate(some: slice) -> float:
        block = matrix[some, :]
        block /= roots[some, None]
        block /= roots[None, :]
        block -= top[some, None] * top[None, :]
        return float(xp.sum(block * block))

    norm = float(np.sqrt(sum(in_threads(deflate, row_blocks(matrix))))) or 1.0
    matrix /= norm
    return rest, norm


def normalise(kernel: Array) -> None:
    """Turn kernels [..., k, k] into diffusion matrices in place."""
    xp = namespace(kernel)
    roots = xp.sqrt(xp.sum(kernel, axis=-1))
    kernel /= roots[..., :, None]
    kernel /= roots[..., None, :]


def eigenvalues(matrix: Array) -> Array:
    """Return the ascending eigenvalues of symmetric matrices [..., k, k]; large ones are solved on their device.

    A GPU solves small matrices one by one, no faster than a single core.
    """
    if matrix.shape[-1] <= SMALL:
        return np.linalg.eigvalsh(to_host(matrix))
    if is_on_host(matrix) and matrix.dtype == np.float32:
        return _eigenvalues_by_torch(matrix)
    return namespace(matrix).linalg.eigvalsh(matrix)


def _eigenvalues_by_torch(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the eigenvalues of a large float32 matrix by torch, up to three times as fast as NumPy."""
    import torch

    threads = torch.get_num_threads()
    try:
        if matrix.shape[0] <= ONE_THREAD:
            torch.set_num_threads(1)
        values: NDArray[np.float32] = torch.linalg.eigvalsh(torch.from_numpy(matrix)).numpy()
    finally:
        torch.set_num_threads(threads)
    return values


def spectrum_entropy(spectrum: Array, t: float) -> Array:
    """Return the entropies, in bits, of absolute eigenvalues [..., n] to the power t, normalised to sum 1: [...]."""
    xp = namespace(spectrum)
    with np.errstate(under="ignore"):
        weights = xp.abs(spectrum) ** t
    return probability_entropy(weights / xp.sum(weights, axis=-1, keepdims=True))


def probability_entropy(probabilities: Array) -> Array:
    """Return the Shannon entropies, in bits, of probabilities [..., n], with float64's epsilon added to each."""
    xp = namespace(probabilities)
    raised = probabilities + float(np.finfo(np.float64).eps)
    return -xp.sum(raised * xp.log2(raised), axis=-1)
