"""The spectrum of an embedding's diffusion matrix (Liao et al., arXiv 2312.04823), all eigenvalues of it.

An embedding's distances are computed once; the diffusion matrix of any subset then follows from their kernel by index.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from .arrays import (
    Array,
    beside,
    is_on_host,
    namespace,
    narrowed,
    rows_of,
    set_diagonal,
    to_host,
    widened,
)
from .estimate import Precision

Item = TypeVar("Item")
Result = TypeVar("Result")

KernelOf = Callable[[NDArray[np.int64]], Array]
"""The Gaussian kernels, new float64 [..., k, k], of the points with these indices, int64 [..., k].

As many different indices as there are points may come in any order: a spectrum does not depend on it.
"""

# Rounding of |a|^2 + |b|^2 - 2ab relative to the distance: below this share of |a|^2 + |b|^2 it passes about 1e-9.
_NEAR = 1e-6
ONE_THREAD = 4096
"""Rows of a float32 matrix up to which one thread solves it, beside other work: two gain little, and on a busy machine
they wait for each other ten times as long as they compute."""

_SMALL = 512  # rows of a matrix up to which many are solved in stacks
_ONE_BLAS_THREAD = 2048
"""Rows of a float64 matrix up to which one thread solves it: on a busy machine two take five times as long."""

_CACHED = 2**17  # numbers in a block that several steps pass over: 1 MiB
_BLOCK = 2**22  # numbers in a block of differences or a stack of matrices: 32 MiB


def squared_distances(Z: Array) -> Array:
    """Return the squared Euclidean distances of all pairs of rows.

    They come from the Gram matrix of the centred rows; pairs that lie so near each other, compared with their distance
    from the centre, that rounding would show are computed anew from their difference. So duplicates are at distance 0
    exactly, and neither a large offset nor an outlier costs accuracy.

    Parameters
    ----------
    Z : float64 [n, d]
        A validated embedding.

    Returns
    -------
    float64 [n, n], symmetric, its diagonal zero.
    """
    centred = centred_rows(Z)
    squares = distances_between(centred, centred, Z, Z)
    set_diagonal(squares, 0)
    return squares


def centred_rows(Z: Array) -> Array:
    """Return the rows less their mean; equal rows become exactly zero."""
    centred = Z - Z[:1, :]
    return centred - namespace(Z).mean(centred, axis=0)


def distances_between(rows: Array, columns: Array, Z_rows: Array, Z_columns: Array) -> Array:
    """Return the squared distances, float64 [a, b], from points [a, d] to points [b, d], centred and as they were."""
    xp = namespace(rows)
    squares = rows @ columns.T  # symmetric to the last bit for equal arguments
    of_rows, of_columns = xp.vecdot(rows, rows), xp.vecdot(columns, columns)

    def finish(some: slice) -> None:
        block = squares[some, :]
        block *= -2
        block += of_rows[some, None] + of_columns[None, :]
        near = block < _NEAR * of_rows[some, None]
        near |= block < _NEAR * of_columns[None, :]
        if xp.any(near):
            block[near] = differences(xp.nonzero(near), Z_rows[some, :], Z_columns)

    in_threads(finish, row_blocks(squares))
    return squares


def differences(pairs: tuple[Array, Array], Z_rows: Array, Z_columns: Array) -> Array:
    """The squared length of the difference of each pair of points, float64 [pairs]."""
    xp = namespace(Z_rows)
    step = max(1, _BLOCK // Z_rows.shape[1])
    parts = []
    count = pairs[0].shape[0]
    for start in range(0, count, step):
        first, second = (points[start : min(start + step, count)] for points in pairs)
        difference = xp.take(Z_rows, first, axis=0) - xp.take(Z_columns, second, axis=0)
        parts.append(xp.vecdot(difference, difference))
    return xp.concat(parts)


def gaussian_kernel(squares: Array, sigma: float) -> Array:
    """Return G = exp(-D^2 / (2 sigma^2)), float64 [..., n, n], for the squared distances D^2."""
    xp = namespace(squares)
    if squares.ndim > 2 or not is_on_host(squares):
        return _quiet_exp(xp, squares, sigma)
    kernel = np.empty_like(squares)

    def fill(some: slice) -> None:
        kernel[some] = _quiet_exp(xp, squares[some], sigma)

    in_threads(fill, row_blocks(squares))
    return kernel


def _quiet_exp(xp: Any, squares: Array, sigma: float) -> Array:
    # Far apart, in units of sigma: 0, as it should be.
    with np.errstate(over="ignore", under="ignore"):
        return xp.exp(squares / (-2 * sigma**2))


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
        with _one_blas_thread() if kernel.shape[0] <= _ONE_BLAS_THREAD else nullcontext():
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
        most = _BLOCK // (4 * size * (numbers_each or size))
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


def row_blocks(matrix: Array) -> list[slice]:
    """Slices of the rows of a matrix that each fit into a core's cache; on a device, all rows."""
    rows, columns = matrix.shape
    step = max(1, _CACHED // columns) if is_on_host(matrix) else rows
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def blas_threads() -> int:
    """Threads that BLAS may use in this process, at least 1: a worker's share of the cores."""
    return max(
        (pool.num_threads for pool in _blas().select(user_api="blas").lib_controllers), default=1
    )


_this_thread = threading.local()


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Map the function over the items in as many threads as BLAS may use, each with one thread of BLAS.

    Within such a thread, it maps them one after the other.
    """
    threads = (
        1 if getattr(_this_thread, "is_one_of_several", False) else min(blas_threads(), len(items))
    )
    with _one_blas_thread():
        if threads <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads, initializer=_mark_this_thread) as pool:
            return list(pool.map(function, items))


def _mark_this_thread() -> None:
    _this_thread.is_one_of_several = True


_lock, _inside = threading.Lock(), ExitStack()
_depth = 0


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread; threads of ours may be inside at the same time, and the last one out restores it."""
    global _depth
    with _lock:
        if _depth == 0:
            _inside.enter_context(_blas().limit(limits=1, user_api="blas"))
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _inside.close()


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process; looking for them takes milliseconds."""
    return ThreadpoolController()
