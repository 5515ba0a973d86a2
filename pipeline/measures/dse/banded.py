"""Traces of a symmetric matrix without its eigenvalues: a reduction to a band, then determinants of shifted bands.

Eigenvalues need a tridiagonal matrix, half of whose cost is products of a matrix with one vector, which wait for
memory. A band B needs only products of blocks. The entropy needs only the sum of x ln x over the eigenvalues x, an
integral over the shifts s of ln det(1 + B / s), and a factorisation of a band gives its determinant.
"""

import numpy as np
from numpy.typing import NDArray

from ..core.threads import in_threads

WIDTH = 64  # of the band
_BLOCK = 4 * WIDTH  # columns that are updated at a time

STEP = 0.8
"""Step of the logarithm of the shift. The error falls as exp(-2 pi^2 / step): below 3e-9 of an eigenvalue."""

# Steps to the greatest and the smallest shift, in units of the largest eigenvalue.
_FIRST, _LAST = 15, -43

Matrix = NDArray[np.float32] | NDArray[np.float64]


def banded(matrix: Matrix) -> Matrix:
    """Reduce a symmetric matrix [n, n] to a band with the same eigenvalues by Householder's reflections, in blocks.

    Parameters
    ----------
    matrix : float32 or float64 [n, n]

    Returns
    -------
    [WIDTH + 1, n]
        The diagonal and those below it, as LAPACK stores a lower band.

    References
    ----------
    Bischof, Lang and Sun, A framework for symmetric band reduction, ACM TOMS 26 (2000), its first stage.
    """
    n, kind = len(matrix), matrix.dtype
    # For each block of columns, its rows from the diagonal on.
    blocks = {start: matrix[start:, start : start + _BLOCK].copy() for start in range(0, n, _BLOCK)}
    band = np.zeros((WIDTH + 1, n), kind)
    left = right = np.zeros((n, 0), kind)  # of the pending update: matrix - left right'
    for first in range(0, n, WIDTH):
        column = first % _BLOCK
        own = blocks[first - column]
        panel = own[column:, column : column + WIDTH]
        panel -= left[first:] @ right[first : first + panel.shape[1]].T
        below = first + WIDTH
        if below >= n:
            _keep(band, panel, first)
            break
        vectors, triangle, factor = _reflected(panel[WIDTH:])
        _keep(band, np.vstack([panel[:WIDTH], triangle]), first)
        of_rows, scaled = np.zeros((2, n, vectors.shape[1]), kind)
        of_rows[below:] = vectors
        scaled[below:] = vectors @ factor
        product = _updated_product(blocks, below, left, right, scaled)
        inner = factor.T @ (vectors.T @ product[below:])
        other = product - of_rows @ (inner / 2)
        left = np.hstack([of_rows, other])
        right = np.hstack([other, of_rows])
    return band


def _updated_product(
    blocks: dict[int, Matrix], below: int, left: Matrix, right: Matrix, factor: Matrix
) -> Matrix:
    """Subtract left right' from the rows and columns from ``below`` on, and return their product with a factor [n, k].

    Threads share the blocks; results are summed in the order of the blocks, so the number of threads does not matter.
    """
    n = len(factor)

    def part(start: int) -> tuple[int, int, Matrix, Matrix]:
        end, row = min(start + _BLOCK, n), max(start, below)
        rest = blocks[start][row - start :, row - start :]
        rest -= left[row:] @ right[row:end].T
        return row, end, rest @ factor[row:end], rest[end - row :].T @ factor[end:]

    product = np.zeros_like(factor)
    for row, end, of_columns, of_rows in in_threads(
        part, [start for start in blocks if start + _BLOCK > below]
    ):
        product[row:] += of_columns
        product[row:end] += of_rows
    return product


def _reflected(columns: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Return V [m, k], R and T [k, k]: (1 - V T V') times R, with rows of zeros below it, are the columns [m, WIDTH].

    References
    ----------
    Schreiber and Van Loan, A storage-efficient WY representation, SIAM J. Sci. Stat. Comput. 10 (1989).
    """
    from scipy.linalg import lapack

    factorise = lapack.sgeqrf if columns.dtype == np.float32 else lapack.dgeqrf
    found, shares, _, _ = factorise(np.asfortranarray(columns), lwork=_BLOCK * WIDTH)
    count = len(shares)
    vectors = np.tril(found[:, :count], -1)
    np.fill_diagonal(vectors, 1)
    # A column that is zero already is not reflected: its share is 0, as are its row and column of T.
    reflected = shares != 0
    inverse = np.triu(vectors.T @ vectors, 1)
    np.fill_diagonal(inverse, 1 / np.where(reflected, shares, 1))
    factor = np.linalg.inv(inverse) * reflected[:, None] * reflected
    return vectors, np.triu(found[:count]), factor.astype(columns.dtype)


def _keep(band: Matrix, columns: Matrix, first: int) -> None:
    """Store columns [rows from the first, k] of the reduced matrix."""
    for place, values in enumerate(columns.T):
        below = values[place : place + WIDTH + 1]
        band[: len(below), first + place] = below


def sum_of_x_log_x(band: NDArray[np.float64], trace: float, squares: float) -> float:
    """Return the sum of x ln x over the eigenvalues x of a band; those below 0 are rounding and count as 0.

    It uses the trapezoidal rule in the logarithm of s for

        x ln x - x = x^2 / 2 - x + int_0^inf x / (1 + s) - ln(1 + x / s) - (x^2 / 2 - x) / (1 + s)^2 ds.

    Parameters
    ----------
    band : float64 [w + 1, n]
        A lower band.
    trace, squares : float
        The sums of its eigenvalues and of their squares.

    References
    ----------
    Trefethen and Weideman, The exponentially convergent trapezoidal rule, SIAM Review 56 (2014).
    """
    largest = _at_most(band)
    if largest <= 0 or trace <= 0:
        return 0.0
    first, second = trace / largest, squares / largest**2
    bend = second / 2 - first
    total = bend + first
    determinants: list[float] = []
    shifts = np.exp(STEP * np.arange(_FIRST, _LAST, -1))
    for s in shifts.tolist():
        determinant = _log_determinant(band, s * largest)
        if determinant is None:
            break
        determinants.append(determinant)
    if len(determinants) < len(shifts):
        determinants.pop()  # its shift may be as small as an eigenvalue below 0, which then counts too much
    known = shifts[: len(determinants)]
    terms = known * (first / (1 + known) - determinants - bend / (1 + known) ** 2)
    total += STEP * float(np.sum(terms))
    # Below the last shift: for all x that count, ln(1 + x / s) grows by the same amount in each step.
    last, slope = determinants[-1], determinants[-1] - determinants[-2]
    share = np.exp(-STEP)
    of_rest = share / (1 - share) * (first - bend - last) - share / (1 - share) ** 2 * slope
    total += STEP * float(known[-1] * of_rest)
    return largest * total + trace * float(np.log(largest))


def _at_most(band: NDArray[np.float64]) -> float:
    """Return an upper bound of the eigenvalues of a band: the largest sum of a row's absolute entries."""
    sizes = np.abs(band)
    sums = sizes.sum(axis=0)
    n = band.shape[1]
    for below in range(1, min(len(band), n)):
        sums[below:] += sizes[below, : n - below]
    return float(sums.max())


def _log_determinant(band: NDArray[np.float64], shift: float) -> float | None:
    """Return ln det(1 + B / shift), or None if 1 + B / shift is not positive definite."""
    from scipy.linalg import lapack

    shifted = band / shift
    shifted[0] += 1
    factor, problem = lapack.dpbtrf(shifted, lower=1, overwrite_ab=1)
    return None if problem else 2 * float(np.sum(np.log(factor[0])))
