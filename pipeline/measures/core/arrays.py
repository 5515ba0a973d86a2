"""The arrays that measures compute with: NumPy's on the CPU, or torch's on the device that holds the embedding.

Measures are written in the array API standard, which both follow. This module has all transfers between devices, and
the few operations that the standard lacks or that NumPy does faster. Classes, images and random numbers are always
NumPy arrays. From an embedding on a device, only results and arrays with one number per sample are copied back, and
[n, d] arrays for scikit-learn's estimators.
"""

from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

# Rows of a matrix from which a few products with it cost less than computing all eigenvalues
MIN_FOR_ARPACK = 200

Array = Any
"""An array of NumPy, torch or another library of the standard; docstrings give its shape."""


def namespace(array: Array) -> Any:
    """Return the module of the array's library with the functions of the standard."""
    return array_api_compat.array_namespace(array)


def is_on_host(array: Array) -> bool:
    """Return whether an array is NumPy's; such arrays are processed in blocks, by this package's threads."""
    return isinstance(array, np.ndarray)


def to_host(array: Array) -> NDArray[Any]:
    """Return the array as a NumPy array."""
    if is_on_host(array):
        return np.asarray(array)
    host = namespace(array).__array_namespace_info__().default_device()
    return np.asarray(array_api_compat.to_device(array, host))


def as_array_like(values: NDArray[Any], array: Array) -> Array:
    """Return NumPy values as an array of the same library, and on the same device, as ``array``."""
    if is_on_host(array):
        return values
    return namespace(array).asarray(
        np.ascontiguousarray(values), device=array_api_compat.device(array)
    )


def rows_of(array: Array, indices: NDArray[np.int64]) -> Array:
    """Return the rows [k, ...] of an array [n, ...] with these indices."""
    return namespace(array).take(array, as_array_like(indices, array), axis=0)


def stacked_rows(matrix: Array, rows: NDArray[np.int64]) -> Array:
    """Return the rows [m, r] of a matrix [n, k] as a stack [m, r, k]."""
    return namespace(matrix).reshape(rows_of(matrix, rows.ravel()), (*rows.shape, matrix.shape[1]))


def block_of(matrix: Array, indices: NDArray[np.int64]) -> Array:
    """Return the rows and columns [k, k] of a matrix [n, n] with these indices, int64 [k]."""
    if is_on_host(matrix):
        return matrix[np.ix_(indices, indices)]
    return namespace(matrix).take(rows_of(matrix, indices), as_array_like(indices, matrix), axis=1)


def as_float32(array: Array) -> Array:
    """Return the array as float32."""
    xp = namespace(array)
    return xp.astype(array, xp.float32)


def as_float64(array: Array) -> Array:
    """Return the array as float64."""
    xp = namespace(array)
    return xp.astype(array, xp.float64)


def exponential_in_place(array: Array) -> None:
    """Replace numbers by their exponentials; those that are too small become 0."""
    if is_on_host(array):
        with np.errstate(under="ignore"):
            np.exp(array, out=array)
    else:
        array[...] = namespace(array).exp(array)


def not_above_zero_in_place(array: Array) -> None:
    """Replace numbers above 0 by 0."""
    if is_on_host(array):
        np.minimum(array, 0, out=array)
    else:
        array[array > 0] = 0.0


def set_diagonal(matrix: Array, value: float) -> None:
    """Set the diagonal of a matrix [n, n] in place."""
    if is_on_host(matrix):
        np.fill_diagonal(matrix, value)
        return
    numbers = np.arange(matrix.shape[0])
    matrix[as_array_like(numbers[:, None] == numbers, matrix)] = value


def times_power_of_two(values: Array, exponent: int) -> Array:
    """Return the values times 2 to the power of the exponent, which changes no digit."""
    if is_on_host(values):
        return np.ldexp(values, exponent)
    half = exponent // 2  # both factors are within float64's range, whatever the exponent
    return (values * 2.0**half) * 2.0 ** (exponent - half)


def group_sums(values: Array, groups: NDArray[np.int64]) -> Array:
    """Sum the rows of ``values`` [n, d] by their group 0, 1, ..., none of them empty: [groups, d]."""
    n, count = len(groups), int(groups.max()) + 1
    if count == n:  # one row each
        return rows_of(values, np.argsort(groups))
    if is_on_host(values):
        from scipy.sparse import csr_array  # imported here: it takes a tenth of a second

        by_group = np.argsort(groups, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(groups))])
        return csr_array((np.ones(n), by_group, ends), shape=(count, n)) @ values
    members = np.arange(count)[:, None] == groups
    return namespace(values).astype(as_array_like(members, values), values.dtype) @ values


def group_means(values: Array, groups: NDArray[np.int64]) -> Array:
    """Return the mean of the rows of ``values`` [n, d] in each group 0, 1, ..., none of them empty: [groups, d]."""
    sizes = np.bincount(groups).astype(np.float64)
    return group_sums(values, groups) / as_array_like(sizes[:, None], values)


def largest_eigenvalue(matrix: Array) -> float:
    """Return the largest eigenvalue of a symmetric matrix [n, n] without negative eigenvalues."""
    if not is_on_host(matrix) or matrix.shape[0] < MIN_FOR_ARPACK:
        return float(namespace(matrix).linalg.eigvalsh(matrix)[-1])
    from scipy.sparse.linalg import eigsh  # imported here: it takes a tenth of a second

    start = np.random.default_rng(0).standard_normal(len(matrix))
    return float(eigsh(matrix, k=1, which="LA", v0=start, return_eigenvectors=False)[0])


def smallest_of_rows(matrix: Array, k: int) -> Array:
    """Return the columns of the k smallest numbers of each row [m, n], in ascending order of the numbers: int64 [m, k].

    Equal numbers are in the order of their columns.
    """
    xp = namespace(matrix)
    if is_on_host(matrix):
        some = np.sort(np.argpartition(matrix, k - 1, axis=1)[:, :k], axis=1)
    elif array_api_compat.is_torch_array(matrix):
        some = xp.sort(matrix.topk(k, dim=1, largest=False).indices, axis=1)
    else:
        some = xp.sort(xp.argsort(matrix, axis=1)[:, :k], axis=1)
    order = xp.argsort(xp.take_along_axis(matrix, some, axis=1), axis=1, stable=True)
    return xp.take_along_axis(some, order, axis=1)


def middle_values(values: Array) -> tuple[float, float]:
    """Return the two middle numbers of [m] in ascending order; the same one twice if m is odd."""
    low, high = (values.shape[0] - 1) // 2, values.shape[0] // 2
    if is_on_host(values):
        ordered = np.partition(values, [low, high])
    else:
        ordered = namespace(values).sort(values)
    return float(ordered[low]), float(ordered[high])


def count_different(values: NDArray[np.float64], digits: int) -> int:
    """Return the number of distinct rows of [n, d], rounded to ``digits`` decimals; faster than sorting them."""
    return len({row.tobytes() for row in values.round(digits) + 0.0})  # -0.0 is 0
