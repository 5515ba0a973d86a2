"""Conversion of tensors, data frames and lists to NumPy arrays.

Neither PyTorch nor pandas is imported here: a caller with their objects has imported them.
"""

import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shortened

DEVICES = ("cuda",)
"""torch's names of the devices on which embeddings are measured; Apple's is left out, as it has no float64."""

NUMBERS = "biuf"  # NumPy's kinds of real numbers
RAGGED = (
    "cannot be read as an array: its rows differ in length or shape; make them the same, "
    "or concatenate the batches"
)
FLOATS_OF_NUMPY = ("torch.float64", "torch.float32", "torch.float16")


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Return values as an array of any shape, and of any dtype except complex.

    Parameters
    ----------
    values : array_like
        A tensor (on any device, dense, with a gradient or without), a data frame, a series, an array or lists.
    name : str
        Name of the values in errors.

    Raises
    ------
    InputError
        If they are not an array, or are ragged, sparse, masked or complex.
    """
    _refuse_other_things(values, name)
    try:
        array = _converted(values, name)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # foreign code, which may raise anything
        reason = as_one_line(error, most=150) or type(error).__name__
        raise InputError(
            f"{name} cannot be read as an array ({reason}); pass a NumPy array"
        ) from None
    if array.dtype.kind == "c":
        raise InputError(
            f"{name} has dtype {array.dtype}, not real numbers; take its absolute value or its real part"
        )
    if array.ndim == 0 and array.dtype.kind == "O":
        raise InputError(f"{name} is a {type(values).__name__}, not an array; pass a NumPy array")
    # NumPy keeps a column of vectors as objects; as a list they stack.
    if _holds_vectors(array):
        return as_array(array.tolist(), name)
    return array


def stays_on_its_device(values: Any) -> bool:
    """Return whether the values are a tensor on a device that can compute the measures: one that has float64."""
    return is_a(values, "torch", "Tensor") and values.device.type in DEVICES


def check_columns(values: Any, name: str) -> None:
    """Raise InputError for a data frame with a column that does not hold numbers; the message names the column."""
    if not is_a(values, "pandas", "DataFrame"):
        return
    for position, (column, dtype) in enumerate(zip(values.columns, values.dtypes, strict=True)):
        if _kind(dtype) not in NUMBERS:
            raise InputError(
                f"{name} has a column {as_one_line(column)!r} of dtype {as_one_line(dtype)}, not real numbers"
                f"{first_non_number(values.iloc[:, position])}; drop it, or convert it to numbers; "
                "if it holds the classes, pass it as the labels (FILE:COLUMN on the command line)"
            )


def first_non_number(values: Any) -> str:
    """Return a suffix for a message, such as ``: 'x' in row 3``, on the first entry that is not a number, or ""."""
    for row, value in enumerate(values):
        if not _is_number(value):
            return f": {as_one_line(repr(value))} in row {row}"
    return ""


def _is_number(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, Real)
    try:
        float(value)
    except ValueError:
        return False
    return True


def is_a(values: Any, module: str, *names: str) -> bool:
    """Return whether values are of one of these classes of a module, without importing the module."""
    imported = sys.modules.get(module)
    return any(isinstance(values, getattr(imported, name, ())) for name in names)


def as_one_line(value: Any, most: int = 40) -> str:
    """Return a value of any type as one line for an error message, with at most ``most`` characters."""
    return shortened(str(value), most)


def _refuse_other_things(values: Any, name: str) -> None:
    if values is None or isinstance(values, str | bytes):
        shown = "None" if values is None else "text"
        raise InputError(f"{name} is {shown}, not an array; pass a NumPy array")
    if isinstance(values, Mapping):
        keys = ", ".join(as_one_line(key) for key in list(values)[:5])
        raise InputError(
            f"{name} is a dict, not an array; pass one of its values ({keys or 'it is empty'})"
        )
    if hasattr(values, "nnz") and hasattr(values, "toarray"):  # SciPy's and CuPy's sparse arrays
        raise InputError(f"{name} is sparse; make it dense, by {name}.toarray()")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise InputError(
            f"{name} has masked values; drop their rows, or fill them by {name}.filled(...)"
        )


def _converted(values: Any, name: str) -> NDArray[Any]:
    if is_a(values, "torch", "Tensor"):
        return _from_tensor(values, name)
    if is_a(values, "pandas", "DataFrame"):
        return _from_frame(values, name)
    if is_a(values, "pandas", "Series"):
        return _from_series(values, name)
    if is_a(values, "pandas", "Index", "Categorical"):
        return _from_series(sys.modules["pandas"].Series(values), name)
    if isinstance(values, list | tuple):
        return _from_list(values, name)
    return np.asarray(values)


def _from_tensor(tensor: Any, name: str) -> NDArray[Any]:
    array: NDArray[Any] = plain_tensor(tensor, name).cpu().resolve_neg().numpy()
    return array


def plain_tensor(tensor: Any, name: str) -> Any:
    """Return a tensor of real numbers on its device, without a gradient, of a type that NumPy has.

    Raises
    ------
    InputError
        If the tensor is sparse, is complex or has no values.
    """
    if tensor.is_complex():
        raise InputError(
            f"{name} has dtype {tensor.dtype}, not real numbers; take its absolute value or its real part"
        )
    if str(tensor.layout) != "torch.strided":
        raise InputError(f"{name} is a sparse tensor; make it dense, by {name}.to_dense()")
    if tensor.is_meta:
        raise InputError(
            f"{name} is on the meta device, where there are no values; compute it on another one"
        )
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_floating_point() and str(tensor.dtype) not in FLOATS_OF_NUMPY:
        tensor = tensor.float()  # exact: it is bfloat16 or shorter
    return tensor.detach()


def _from_frame(frame: Any, name: str) -> NDArray[Any]:
    columns = [_from_series(frame.iloc[:, position], name) for position in range(frame.shape[1])]
    if not columns:
        return np.empty(frame.shape)
    if len(columns) > 1 and any(column.dtype.kind not in NUMBERS for column in columns):
        columns = [column.astype(object) for column in columns]
    return np.stack(columns, axis=1)


def _from_series(series: Any, name: str) -> NDArray[Any]:
    dtype = series.dtype
    if str(dtype).startswith("Sparse["):
        raise InputError(f"{name} is sparse; make it dense, by {name}.sparse.to_dense()")
    of_numpy = getattr(dtype, "numpy_dtype", None)  # of pandas' nullable dtypes
    if of_numpy is None or of_numpy.kind not in NUMBERS:
        return np.asarray(series)
    if series.hasnans:
        filled: NDArray[Any] = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return filled
    return np.asarray(series.to_numpy(dtype=of_numpy))


def _from_list(values: list[Any] | tuple[Any, ...], name: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    # NumPy cannot convert tensors that are on a GPU or have a gradient.
    except (
        TypeError,
        RuntimeError,
    ):
        parts = [as_array(value, name) for value in values]
        if len({part.shape for part in parts}) > 1:
            raise InputError(f"{name} {RAGGED}") from None
        return np.stack(parts)
    except ValueError:
        raise InputError(f"{name} {RAGGED}") from None
    if array.dtype.kind not in "US":
        return array
    objects = np.array(values, dtype=object)
    # NumPy has made them all text: a missing value would be the class "nan", and 1 the same as "1".
    return array if array.tolist() == objects.tolist() else objects


def _holds_vectors(array: NDArray[Any]) -> bool:
    """Return whether the array is a column of vectors: objects [n], all of them arrays, lists or tensors."""
    if array.ndim != 1 or array.dtype.kind != "O" or not len(array):
        return False
    return all(
        isinstance(value, np.ndarray | list) or is_a(value, "torch", "Tensor") for value in array
    )


def _kind(dtype: Any) -> str:
    """Return NumPy's letter for the kind of values in a data frame's column."""
    categories = getattr(dtype, "categories", None)
    values = dtype if categories is None else categories.dtype
    kind: str = getattr(values, "numpy_dtype", values).kind
    return kind
