"""What the measures accept: every wrong input is one line that says what is wrong and what to do."""

import operator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Far beyond any network's values; below it no square, sum or quotient of squares leaves float64 unnoticed.
LARGEST = 1e100


def as_array(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return values as an array of whatever shape and dtype."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{name} cannot be read as an array ({reason}); pass a NumPy array") from None


def as_embedding(Z: ArrayLike, name: str = "Z") -> NDArray[np.float64]:
    """Return Z as float64 [n, d], n and d at least 1, all values finite.

    Raises
    ------
    ValueError
        If Z is not a numeric matrix, is empty, or holds a value that is NaN, infinite or beyond 1e100.
    """
    array = as_array(Z, name)
    if array.ndim != 2:
        raise ValueError(
            f"{name} has shape {list(array.shape)} where [n, d] is needed: one row a sample; reshape it, "
            f"for instance by {name}.reshape(len({name}), -1)"
        )
    if array.size == 0:
        raise ValueError(f"{name} is empty, its shape is {list(array.shape)}; pass at least one row and one column")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}, not real numbers; convert it, for instance to float64")
    with np.errstate(over="ignore"):  # a wider float may not fit; it is then infinite, and told as such
        array = array.astype(np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.flatnonzero(~finite.all(axis=1))[0])
        raise ValueError(
            f"{name} holds {int((~finite).sum())} values that are NaN or infinite, the first in row {row}; "
            "drop such rows or mend what made them"
        )
    largest = float(np.abs(array).max())
    if largest > LARGEST:
        raise ValueError(f"{name} holds values up to {largest:.3g}, too large to square; scale it to below {LARGEST:g}")
    return array


def as_classes(labels: ArrayLike, n: int, name: str = "labels") -> NDArray[np.int64]:
    """Return the classes of n samples, numbered 0, 1, ... in order of appearance, int64 [n].

    Parameters
    ----------
    labels : [n] or [n, 1]
        Integers, strings or any other values that can be told apart; floating-point numbers if they are whole.
    n : int
        Number of samples.
    name : str
        What an error calls the labels.

    Raises
    ------
    ValueError
        If there are not n labels, one is missing, they are continuous, or they make fewer than two classes.
    """
    array = as_array(labels, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{name} have shape {list(array.shape)} where [n] or [n, 1] is needed: one label a sample; "
            "take the argmax of one-hot labels"
        )
    if len(array) != n:
        raise ValueError(f"{name} has {len(array)} entries but the embedding has {n} rows; pass one for each row")
    if array.dtype.kind == "O" and all(isinstance(value, Real) for value in array):
        array = array.astype(np.float64)
    missing = np.array([_is_missing(value) for value in array])
    if missing.any():
        row = int(missing.argmax())
        raise ValueError(f"{name} has {int(missing.sum())} missing entries, the first in row {row}; drop such rows")
    if array.dtype.kind in "fc" and (array != np.round(array)).any():
        raise ValueError(f"{name} look continuous, they are not whole numbers; cluster them with cluster_inputs first")
    classes = order_of_appearance(array)
    if classes.max() == 0:
        raise ValueError(f"{name} make one class only, a mutual information needs at least two; pass more classes")
    return classes


def as_images(image_ids: ArrayLike | None, classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the images of the samples by their first appearance, int64 [n].

    Parameters
    ----------
    image_ids : [n] or None
        Repeats of an image share an id; with None every sample is an image of its own.
    classes : int64 [n]
        The class of each sample.

    Raises
    ------
    ValueError
        If there are not n ids, or the repeats of an image are of different classes.
    """
    if image_ids is None:
        return np.arange(len(classes))
    ids = as_array(image_ids, "image_ids")
    if ids.shape != classes.shape:
        raise ValueError(
            f"image_ids has shape {list(ids.shape)} but the embedding has {len(classes)} rows; pass one for each row"
        )
    images = order_of_appearance(ids)
    _, first = np.unique(images, return_index=True)
    differs = classes != classes[first][images]
    if differs.any():
        image = ids[differs.argmax()]
        raise ValueError(f"the repeats of image {image} bear different labels; give each image one label or its own id")
    return images


def order_of_appearance(values: NDArray[Any]) -> NDArray[np.int64]:
    """Number the distinct values, [n], by their first appearance: int64 [n]."""
    numbers: dict[Any, int] = {}
    try:
        return np.array([numbers.setdefault(value, len(numbers)) for value in values.tolist()], dtype=np.int64)
    except TypeError as error:
        raise ValueError(f"labels and ids must be numbers, strings or the like ({error}); convert them") from None


def as_sigma(sigma: float | None, d: int) -> float:
    """Return the kernel's width: sigma itself, or the paper's sqrt(d) for None."""
    return float(np.sqrt(d)) if sigma is None else _positive(sigma, "sigma")


def as_time(t: float) -> float:
    """Return the diffusion time, any positive number."""
    return _positive(t, "t")


def as_tolerance(tolerance: float) -> float:
    """Return the standard error, in bits, that an approximation stops at, any positive number."""
    return _positive(tolerance, "tolerance")


def as_count(value: int, name: str, least: int = 1, most: int | None = None) -> int:
    """Return a whole number that is at least ``least`` and at most ``most``."""
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; pass a whole number, at least {least}") from None
    if count < least or (most is not None and count > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {count}; pass a whole number {bounds}")
    return count


def as_seed(seed: int) -> int:
    """Return a seed that Python's, NumPy's and scikit-learn's generators all take."""
    return as_count(seed, "seed", least=0, most=2**32 - 1)


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)  # NaN and NaT differ from themselves
    except (TypeError, ValueError):  # pandas' NA will not say
        return True


def _positive(value: float, name: str) -> float:
    if not isinstance(value, Real) or not 1 / LARGEST <= float(value) <= LARGEST:
        raise ValueError(f"{name} is {value!r}; pass a finite number above 0")
    return float(value)
