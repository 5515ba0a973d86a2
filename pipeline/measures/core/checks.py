"""Validation of the input of measures; each error is one line that says what is wrong and what to do."""

import operator
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsmi_zoo._util.errors import InputError

from .arrays import Array, as_float64, is_on_host, namespace, to_host
from .conversion import (
    NUMBERS,
    as_array,
    as_one_line,
    check_columns,
    first_non_number,
    is_a,
    plain_tensor,
    stays_on_its_device,
)
from .settings import MAX_SEED, MAX_VALUE

MAX_WHOLE = 2.0**53  # beyond it, float64 does not hold every whole number


def as_embedding(Z: ArrayLike, name: str = "Z") -> Array:
    """Return Z as float64 [n, d], n and d at least 1, all values finite: on the GPU if it is there, else in NumPy.

    Raises
    ------
    InputError
        If Z is not a numeric matrix, is empty, or holds a value that is NaN, infinite or beyond 1e100.
    """
    check_columns(Z, name)
    array = plain_tensor(Z, name) if stays_on_its_device(Z) else as_array(Z, name)
    shape = list(array.shape)
    if len(shape) != 2:
        raise InputError(
            f"{name} has shape {shape} where [n, d] is needed: one row per sample; reshape it, "
            f"for instance by {name}.reshape(len({name}), -1)"
        )
    if 0 in shape:
        raise InputError(
            f"{name} is empty, its shape is {shape}; pass at least one row and one column"
        )
    if is_on_host(array) and array.dtype.kind not in NUMBERS:
        raise InputError(
            f"{name} has dtype {array.dtype}, not real numbers{_culprit(array)}; convert it, for instance to float64"
        )
    xp = namespace(array)
    # A wider float that does not fit becomes infinite, and is reported as such.
    with np.errstate(over="ignore"):
        array = as_float64(array)
    finite = xp.isfinite(array)
    if not xp.all(finite):
        broken = to_host(~xp.all(finite, axis=1))
        raise InputError(
            f"{name} holds {int(xp.count_nonzero(~finite))} values that are NaN or infinite, the first in row "
            f"{int(broken.argmax())}; drop such rows or mend what made them"
        )
    largest = float(xp.max(xp.abs(array)))
    if largest > MAX_VALUE:
        raise InputError(
            f"{name} holds values up to {largest:.3g}, too large to square; scale it to below {MAX_VALUE:g}"
        )
    return array


def as_embedding_on_host(Z: ArrayLike, name: str = "Z") -> NDArray[np.float64]:
    """Validate Z as ``as_embedding`` does, but always return a NumPy array."""
    check_columns(Z, name)
    embedding: NDArray[np.float64] = as_embedding(as_array(Z, name), name)
    return embedding


def as_classes(labels: ArrayLike, n: int, name: str = "labels") -> NDArray[np.int64]:
    """Return the classes of n samples, numbered 0, 1, ... in order of appearance, int64 [n].

    Parameters
    ----------
    labels : [n] or [n, 1]
        Integers, strings or any other distinguishable values; floating-point numbers only if they are whole.
    n : int
        Number of samples.
    name : str
        Name of the labels in errors.

    Raises
    ------
    InputError
        If there are not n labels, one is missing, they are continuous, or they make fewer than two classes.
    """
    classes = as_groups(labels, n, name)
    if classes.max() == 0:
        raise InputError(
            f"{name} make one class only, a mutual information needs at least two; pass more classes"
        )
    return classes


def as_groups(labels: ArrayLike, n: int, name: str = "labels") -> NDArray[np.int64]:
    """Return the classes as ``as_classes`` does, but allow a single class."""
    array = _column(labels, name)
    if array.ndim != 1:
        raise InputError(
            f"{name} have shape {list(array.shape)} where [n] or [n, 1] is needed: one label a sample; "
            "take the argmax of one-hot labels"
        )
    if len(array) != n:
        raise InputError(
            f"{name} has {len(array)} entries but the embedding has {n} rows; pass one for each row"
        )
    _refuse_missing(array, name)
    if array.dtype.kind not in "iu" and not all(_is_whole(value) for value in array.tolist()):
        raise InputError(
            f"{name} look continuous, they are not whole numbers; cluster them with cluster_inputs first"
        )
    return order_of_appearance(array)


def as_images(image_ids: ArrayLike | None, classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the images of the samples by their first appearance, int64 [n].

    Parameters
    ----------
    image_ids : [n] or None
        Repeats of an image share an id; with None, every sample is a separate image.
    classes : int64 [n]
        The class of each sample.

    Raises
    ------
    InputError
        If there are not n ids, or the repeats of an image are of different classes.
    """
    if image_ids is None:
        return np.arange(len(classes))
    ids = _column(image_ids, "image_ids")
    if ids.shape != classes.shape:
        raise InputError(
            f"image_ids has shape {list(ids.shape)} but the embedding has {len(classes)} rows; pass one for each row"
        )
    _refuse_missing(ids, "image_ids")
    images = order_of_appearance(ids)
    _, first = np.unique(images, return_index=True)
    differs = classes != classes[first][images]
    if differs.any():
        image = as_one_line(ids[differs.argmax()])
        raise InputError(
            f"the repeats of image {image} bear different labels; give each image one label or its own id"
        )
    return images


def order_of_appearance(values: NDArray[Any]) -> NDArray[np.int64]:
    """Number the distinct values, [n], by their first appearance: int64 [n]."""
    if values.dtype.kind in "iu":
        _, first, number = np.unique(values, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[number]
    numbers: dict[Any, int] = {}
    plain = values.tolist()
    if values.dtype.kind == "O" and any(is_a(value, "torch", "Tensor") for value in plain):
        raise InputError(
            "labels and ids mix tensors with other values; pass one tensor or plain numbers"
        )
    try:
        return np.array(
            [numbers.setdefault(value, len(numbers)) for value in plain], dtype=np.int64
        )
    except TypeError as error:
        raise InputError(
            f"labels and ids must be numbers, strings or the like ({as_one_line(error)}); convert them"
        ) from None


def as_count(value: int, name: str, least: int = 1, most: int | None = None) -> int:
    """Return a whole number that is at least ``least`` and at most ``most``."""
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None:
        raise InputError(f"{name} is {value!r}; pass a whole number, at least {least}")
    if count < least or (most is not None and count > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} is {count}; pass a whole number {bounds}")
    return count


def as_seed(seed: int) -> int:
    """Return a seed that Python's, NumPy's and scikit-learn's generators all take."""
    return as_count(seed, "seed", least=0, most=MAX_SEED)


def _column(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return [n] or [n, 1] as [n], and anything else as it is."""
    array = as_array(values, name)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _refuse_missing(array: NDArray[Any], name: str) -> None:
    """Refuse missing entries, and floating-point numbers so large that different integers may have become equal."""
    if array.dtype.kind in "iu":
        return
    missing = np.array([_is_missing(value) for value in array], dtype=bool)
    if missing.any():
        row = int(missing.argmax())
        raise InputError(
            f"{name} has {int(missing.sum())} missing entries, the first in row {row}; drop such rows"
        )
    if array.dtype.kind == "f" and len(array) and float(np.abs(array).max()) >= MAX_WHOLE:
        raise InputError(
            f"{name} holds numbers beyond 2^53 as {array.dtype}, which are rounded; pass integers or text"
        )


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)  # NaN and NaT differ from themselves
    # Comparing pandas' NA or a signalling NaN raises an error.
    except (
        TypeError,
        ValueError,
        ArithmeticError,
    ):
        return True


def _is_whole(value: Any) -> bool:
    """Return whether a value is a whole number, or not a number at all."""
    return not isinstance(value, Real) or isinstance(value, Integral) or bool(value % 1 == 0)


def _culprit(array: NDArray[Any]) -> str:
    """Return as text the first entry of an array [n, d] of objects that is not a number, and its column."""
    columns = array.T if array.dtype.kind == "O" else ()
    for column, values in enumerate(columns):
        found = first_non_number(values)
        if found:
            return f": column {column} holds {found.removeprefix(': ')}"
    return ""


class UndefinedScore(ValueError):
    """Raised when a score is undefined for an embedding; the message is one short line without a full stop."""
