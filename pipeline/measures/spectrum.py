"""The spectrum of an embedding's diffusion matrix (Liao et al., arXiv 2312.04823), all eigenvalues of it.

An embedding's distances are computed once; the diffusion matrix of any subset then follows from their kernel by index.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from .estimate import Precision

Item = TypeVar("Item")
Result = TypeVar("Result")

KernelOf = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""The Gaussian kernels, new float64 [..., k, k], of the points with these indices, int64 [..., k]."""

# Rounding of |a|^2 + |b|^2 - 2ab relative to the distance: below this share of |a|^2 + |b|^2 it passes about 1e-9.
_NEAR = 1e-6
ONE_THREAD = 4096
"""Rows of a float32 matrix up to which one thread solves it, beside other work: two gain little, and on a busy machine
they wait for each other ten times as long as they compute."""

_SMALL = 512  # rows of a matrix up to which threads wait for each other longer than they compute
_CACHED = 2**17  # numbers in a block that several steps pass over: 1 MiB
_BLOCK = 2**22  # numbers in a block of differences or a stack of matrices: 32 MiB


def squared_distances(Z: NDArray[np.float64]) -> NDArray[np.float64]:
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
    np.fill_diagonal(squares, 0)
    return squares


def centred_rows(Z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rows less their mean; equal rows become exactly zero."""
    centred = Z - Z[0]
    centred -= centred.mean(axis=0)
    return centred


def distances_between(
    rows: NDArray[np.float64], columns: NDArray[np.float64], Z_rows: NDArray[np.float64], Z_columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the squared distances, float64 [a, b], from points [a, d] to points [b, d], centred and as they were."""
    squares = rows @ columns.T  # symmetric to the last bit for equal arguments
    of_rows, of_columns = (np.einsum("ij,ij->i", points, points) for points in (rows, columns))
    step = max(1, _BLOCK // rows.shape[1])

    def finish(some: slice) -> None:
        block = squares[some]
        block *= -2
        block += np.add.outer(of_rows[some], of_columns)
        near = block < _NEAR * of_rows[some, None]
        near |= block < _NEAR * of_columns
        first, second = np.nonzero(near)
        for start in range(0, len(first), step):
            i, j = first[start : start + step], second[start : start + step]
            difference = Z_rows[some][i] - Z_columns[j]
            block[i, j] = np.einsum("ij,ij->i", difference, difference)

    in_threads(finish, _row_blocks(squares))
    return squares


def gaussian_kernel(squares: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Return G = exp(-D^2 / (2 sigma^2)), float64 [n, n], for the squared distances D^2."""
    kernel = np.empty_like(squares)

    def fill(some: slice) -> None:
        with np.errstate(over="ignore", under="ignore"):  # far apart, in units of sigma: 0, as it should be
            np.divide(squares[some], -2 * sigma**2, out=kernel[some])
            np.exp(kernel[some], out=kernel[some])

    in_threads(fill, _row_blocks(squares))
    return kernel


def subset_kernels(kernel: NDArray[np.float64]) -> KernelOf:
    """Return the function that takes subsets' kernels from the kernel [n, n] of all points."""
    return lambda indices: kernel[indices[..., :, None], indices[..., None, :]]


def separate_kernels(Z: NDArray[np.float64], sigma: float) -> KernelOf:
    """Return the function that computes subsets' kernels from their rows of Z [n, d], for too many points at once."""

    def kernels(indices: NDArray[np.int64]) -> NDArray[np.float64]:
        if indices.ndim > 1:
            return np.stack([kernels(subset) for subset in indices])
        return gaussian_kernel(squared_distances(Z[indices]), sigma)

    return kernels


def diffusion_eigenvalues(
    kernel: NDArray[np.float64], indices: NDArray[np.int64] | None = None, *, precision: Precision = "float64"
) -> NDArray[np.float64]:
    """Return the eigenvalues of the diffusion matrix of all points or of a subset, ascending.

    With q the row sums of the kernel G among these points, they are the eigenvalues of G_ij / sqrt(q_i q_j), a
    symmetric matrix with the spectrum of the Markov matrix G_ij / q_i; the largest is 1.

    Parameters
    ----------
    kernel : float64 [n, n]
        Gaussian kernel of all points.
    indices : int64 [k], optional
        The subset's points; all by default.
    precision
        Of the eigensolver. In float32 the eigenvector of the largest eigenvalue, which is known, is taken out
        beforehand, so that rounding is relative to the others.

    Returns
    -------
    float64 [k]
    """
    return _spectrum(kernel.copy() if indices is None else subset_kernels(kernel)(indices), precision)


def _spectrum(matrix: NDArray[np.float64], precision: Precision) -> NDArray[np.float64]:
    """Eigenvalues, ascending, of the diffusion matrix of a kernel [k, k], which is used up."""
    if precision == "float64":
        normalise(matrix)
        with _one_blas_thread() if len(matrix) <= _SMALL else nullcontext():
            return _eigenvalues(matrix)
    roots = np.sqrt(matrix.sum(axis=1))
    top, narrow = roots / np.linalg.norm(roots), np.empty(matrix.shape, dtype=np.float32)

    def deflate(some: slice) -> float:
        block = matrix[some]
        block /= roots[some, None]
        block /= roots
        block -= top[some, None] * top
        return float(np.vdot(block, block))

    def divide(some: slice) -> None:
        np.divide(matrix[some], scale, out=narrow[some], casting="same_kind")

    scale = np.sqrt(sum(in_threads(deflate, _row_blocks(matrix)))) or 1.0  # small eigenvalues keep their digits
    in_threads(divide, _row_blocks(matrix))
    values = np.maximum(_eigenvalues(narrow).astype(np.float64), 0) * scale
    values[0] = 1  # the largest, in place of the zero that is left of it
    return np.sort(values)


def normalise(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn kernels [..., k, k] into diffusion matrices in place; returns the roots of their row sums [..., k]."""
    roots = np.sqrt(kernel.sum(axis=-1))
    kernel /= roots[..., :, None]
    kernel /= roots[..., None, :]
    return roots


def subset_spectra(
    kernels: KernelOf,
    subsets: Sequence[NDArray[np.int64]],
    precisions: Sequence[Precision],
    summary: Callable[[NDArray[np.float64]], NDArray[np.float64]],
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
    found = np.empty(len(subsets))

    def solve(numbers: list[int]) -> None:
        stack = kernels(np.stack([subsets[number] for number in numbers]))
        normalise(stack)
        found[numbers] = summary(_eigenvalues(stack))

    in_threads(
        solve, list(_stacks([len(subset) if len(subset) <= _SMALL else 0 for subset in subsets], blas_threads()))
    )
    for number, subset in enumerate(subsets):
        if len(subset) > _SMALL:
            found[number] = summary(_spectrum(kernels(subset), precisions[number])[None])[0]
    return found


def _stacks(sizes: Sequence[int], threads: int) -> Iterator[list[int]]:
    """Numbers of the subsets that are solved together; those of size 0 are left out."""
    for size in sorted({*sizes} - {0}):
        numbers = [number for number, of_this in enumerate(sizes) if of_this == size]
        step = max(1, min(_BLOCK // (4 * size * size), -(-len(numbers) // threads)))
        yield from (numbers[start : start + step] for start in range(0, len(numbers), step))


def _eigenvalues(matrix: NDArray[Any]) -> NDArray[Any]:
    """Eigenvalues of symmetric matrices [..., k, k], ascending: on a CUDA device if there is one and it pays."""
    device = eigenvalue_device(matrix.shape[-1], matrix.dtype.itemsize)
    return np.linalg.eigvalsh(matrix) if device is None else eigenvalues_on(device, matrix)


def eigenvalue_device(k: int, bytes_a_number: int) -> str | None:
    """Where torch should solve an eigenproblem of k rows; None means that NumPy does.

    A process that has not loaded torch (the driver, a short command) loads it for large float32 problems only, where
    it is some three times as fast as NumPy's LAPACK.
    """
    if k <= _SMALL:
        return None  # the transfer takes longer than the solution
    if bytes_a_number == 4 or "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            return "cuda"
        return "cpu" if bytes_a_number == 4 else None
    return None


def eigenvalues_on(device: str, matrix: NDArray[Any]) -> NDArray[Any]:
    """Eigenvalues of symmetric matrices [..., k, k] by torch on a device, ascending, in their own precision."""
    import torch

    threads = torch.get_num_threads()
    try:
        if matrix.shape[-1] <= ONE_THREAD:
            torch.set_num_threads(1)
        values: NDArray[Any] = torch.linalg.eigvalsh(torch.from_numpy(matrix).to(device)).cpu().numpy()
    finally:
        torch.set_num_threads(threads)
    return values


def _row_blocks(matrix: NDArray[Any]) -> list[slice]:
    """Slices of the rows of a matrix that each fit into a core's cache."""
    step = max(1, _CACHED // matrix.shape[1])
    return [slice(start, start + step) for start in range(0, len(matrix), step)]


def blas_threads() -> int:
    """Threads that BLAS may use in this process, at least 1: a worker's share of the cores."""
    return max((pool.num_threads for pool in _blas().select(user_api="blas").lib_controllers), default=1)


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Map the function over the items in as many threads as BLAS may use, each with one thread of BLAS."""
    threads = min(blas_threads(), len(items))
    with _one_blas_thread():
        if threads <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))


_lock, _inside = Lock(), ExitStack()
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
