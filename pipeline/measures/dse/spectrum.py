"""The spectrum of an embedding's diffusion matrix (Liao et al., arXiv 2312.04823), all eigenvalues of it.

An embedding's distances are computed once; the diffusion matrix of any subset then follows from their kernel by index.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import (
    Array,
    beside,
    is_on_host,
    namespace,
    narrowed,
    rows_of,
    to_host,
    widened,
)
from ..core.distances import BLOCK_NUMBERS, gaussian_kernel, row_blocks, squared_distances
from ..core.estimate import Precision
from ..core.threads import blas_threads, in_threads, one_blas_thread

KernelOf = Callable[[NDArray[np.int64]], Array]
"""The Gaussian kernels, new float64 [..., k, k], of the points with these indices, int64 [..., k].

As many different indices as there are points may come in any order: a spectrum does not depend on it.
"""
ONE_THREAD = 4096
"""Rows of a float32 matrix up to which one thread solves it, beside other work: two gain little, and on a busy machine
they wait for each other ten times as long as they compute."""

_SMALL = 512  # rows of a matrix up to which many are solved in stacks
_ONE_BLAS_THREAD = 2048
"""Rows of a float64 matrix up to which one thread solves it: on a busy machine two take five times as long."""


def subset_kernels(squares: Array, sigma: float) -> KernelOf:
    """Return the function that makes subsets' kernels from the squared distances [n, n] of all points."""

    def kernels(indices: NDArray[np.int64]) -> Array:
        if indices.shape == squares.shape[:1]:
            return gaussian_kernel(squares, sigma)
        places = indices[..., :, None] * squares.shape[1] + indices[..., None, :]
        flat = namespace(squares).reshape(squares, (-1,))
        of_subsets = namespace(squares).take(flat, beside(places.reshape(-1), squares))
        return gaussian_kernel(namespace(squares).reshape(of_subsets, places.shape), sigma)

    return kernels


def separate_kernels(Z: Array, sigma: float) -> KernelOf:
    """Return the function that computes subsets' kernels from their rows of Z [n, d], for too many points at once."""

    def kernels(indices: NDArray[np.int64]) -> Array:
        if indices.ndim > 1:
            return namespace(Z).stack([kernels(subset) for subset in indices])
        return gaussian_kernel(squared_distances(rows_of(Z, indices)), sigma)

    return kernels


def diffusion_eigenvalues(kernel: Array, *, precision: Precision = "float64") -> Array:
    """Return the eigenvalues of the diffusion matrix of a Gaussian kernel, ascending.

    With q the row sums of the kernel G, they are the eigenvalues of G_ij / sqrt(q_i q_j), a symmetric matrix with the
    spectrum of the Markov matrix G_ij / q_i; the largest is 1.

    Parameters
    ----------
    kernel : float64 [n, n]
        It is used up: the matrix is made in its place.
    precision
        Of the eigensolver. In float32 the eigenvector of the largest eigenvalue, which is known, is taken out
        beforehand, so that rounding is relative to the others.

    Returns
    -------
    float64 [n]
    """
    if precision == "float64":
        normalise(kernel)
        with one_blas_thread() if kernel.shape[0] <= _ONE_BLAS_THREAD else nullcontext():
            return _eigenvalues(kernel)
    return _narrow_eigenvalues(kernel)


def _narrow_eigenvalues(matrix: Array) -> Array:
    """Eigenvalues by float32 of the diffusion matrix of a kernel [n, n], which is used up."""
    xp = namespace(matrix)
    roots = xp.sqrt(xp.sum(matrix, axis=1))
    top = roots / xp.linalg.vector_norm(roots)

    def deflate(some: slice) -> float:
        block = matrix[some, :]
        block /= roots[some, None]
        block /= roots[None, :]
        block -= top[some, None] * top[None, :]
        return float(xp.sum(block * block))

    # Small eigenvalues keep their digits.
    norm = np.sqrt(sum(in_threads(deflate, row_blocks(matrix)))) or 1.0
    matrix /= norm
    values = xp.clip(widened(_eigenvalues(narrowed(matrix))), 0, None) * norm
    values[0] = 1.0  # the largest, in place of the zero that is left of it
    return xp.sort(values)


def normalise(kernel: Array) -> Array:
    """Turn kernels [..., k, k] into diffusion matrices in place; returns the roots of their row sums [..., k]."""
    xp = namespace(kernel)
    roots = xp.sqrt(xp.sum(kernel, axis=-1))
    kernel /= roots[..., :, None]
    kernel /= roots[..., None, :]
    return roots


def subset_spectra(
    kernels: KernelOf,
    subsets: Sequence[NDArray[np.int64]],
    precisions: Sequence[Precision],
    summary: Callable[[Array], Array],
) -> NDArray[np.float64]:
    """Return a summary of the eigenvalues of each subset's diffusion matrix, float64 [subsets].

    Small subsets of one size are solved in stacks, and the stacks shared out among as many threads as BLAS may use;
    large ones are solved one after the other by all of them.

    Parameters
    ----------
    kernels
        Kernels of subsets of the points.
    subsets
        The points of each subset, int64 [k].
    precisions
        Of each subset's eigenvalues; small ones are float64 in any case.
    summary
        A function of eigenvalues [b, k] to numbers [b].
    """
    summaries = np.empty(len(subsets))

    def solve(numbers: list[int]) -> None:
        stack = kernels(np.stack([subsets[number] for number in numbers]))
        normalise(stack)
        summaries[numbers] = to_host(summary(_eigenvalues(stack)))

    small = [number for number, subset in enumerate(subsets) if len(subset) <= _SMALL]
    small_subsets = [subsets[number] for number in small]
    stacks = [np.array(small)[places].tolist() for places in of_equal_size(small_subsets)]
    in_threads(solve, stacks)
    for number, subset in enumerate(subsets):
        if len(subset) > _SMALL:
            eigenvalues = diffusion_eigenvalues(kernels(subset), precision=precisions[number])
            summaries[number] = float(summary(eigenvalues[None, :])[0])
    return summaries


def of_equal_size(
    subsets: Sequence[NDArray[np.int64]], numbers_each: int | None = None
) -> Iterator[list[int]]:
    """Places of the subsets that are computed together: of one size k, and no more than memory and threads ask for.

    ``numbers_each`` is how many numbers there are for each point of a subset, by default its size.
    """
    sizes = [len(subset) for subset in subsets]
    for size in sorted({*sizes}):
        places = [place for place, of_this in enumerate(sizes) if of_this == size]
        most = BLOCK_NUMBERS // (4 * size * (numbers_each or size))
        step = max(1, min(most, -(-len(places) // blas_threads())))
        yield from (places[start : start + step] for start in range(0, len(places), step))


def _eigenvalues(matrix: Array) -> Array:
    """Eigenvalues of symmetric matrices [..., k, k], ascending: of small ones on the host, else where they are.

    A GPU solves small matrices one after the other, and no faster than one core does.
    """
    if matrix.shape[-1] <= _SMALL:
        return np.linalg.eigvalsh(to_host(matrix))
    if is_on_host(matrix) and matrix.dtype == np.float32:
        return _eigenvalues_by_torch(matrix)
    return namespace(matrix).linalg.eigvalsh(matrix)


def _eigenvalues_by_torch(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same for a large float32 problem, where torch's LAPACK is up to three times as fast as NumPy's."""
    import torch

    threads = torch.get_num_threads()
    try:
        if matrix.shape[0] <= ONE_THREAD:
            torch.set_num_threads(1)
        values: NDArray[np.float32] = torch.linalg.eigvalsh(torch.from_numpy(matrix)).numpy()
    finally:
        torch.set_num_threads(threads)
    return values
