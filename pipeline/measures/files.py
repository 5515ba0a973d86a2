"""Read an embedding or labels from a file in one of the formats that people keep them in.

Nothing in a file is ever executed: no pickled objects are read.
"""

import csv
import logging
import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsmi_zoo._util.errors import InputError

from .core.conversion import as_array, check_columns, shown_name

if TYPE_CHECKING:
    import pandas as pd


MOST_SHRUNK = 1100  # deflate makes nothing smaller than to 1/1032
LONGEST_HEADER = (
    10_000  # bytes; NumPy has the same limit, and reads the header before it applies it
)
HELD_BY_ANY = 2**30  # bytes that no claim needs a reason for


class _Claims(ValueError):
    """More than there is."""


def check_npy(file: IO[bytes], size: int) -> None:
    """Raise ValueError if the header of a ``.npy`` file of ``size`` bytes claims more than those.

    What else may be wrong with it is for NumPy to tell.
    """
    try:
        version = np.lib.format.read_magic(file)
        width = 2 if version == (1, 0) else 4
        length = int.from_bytes(file.read(width), "little")
        if length > LONGEST_HEADER:
            raise _Claims(f"its header claims to have {length:,} bytes")
        file.seek(-width, os.SEEK_CUR)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
    except _Claims:
        raise
    except ValueError:
        return
    claimed = math.prod(shape) * max(dtype.itemsize, 1)
    if claimed > size and not dtype.hasobject:
        raise ValueError(f"its header claims {claimed:.3g} bytes, and it has {size}")


def check_zip(file: Path, largest_ratio: int = MOST_SHRUNK) -> None:
    """Raise ValueError if a member of a zip archive claims to become more than deflate could have made smaller."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(
                    f"{member.filename} is compressed in a way that neither NumPy nor PyTorch uses"
                )
            if member.file_size > member.compress_size * largest_ratio + 1000:
                raise ValueError(
                    f"{member.filename} claims {member.file_size:.3g} bytes from {member.compress_size}"
                )


def check_npz(file: Path, name: str) -> None:
    """Raise ValueError unless the member ``name`` of a ``.npz`` file is as large as its header claims."""
    check_zip(file)
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        member = archive.getinfo(name if name in names else f"{name}.npy")
        with archive.open(member) as opened:
            check_npy(opened, member.file_size)


def check_parquet(file: Path) -> None:
    """Raise ValueError for a Parquet file of more values than its bytes can stand for."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file)
    claimed = metadata.num_rows * metadata.num_columns * 8
    if claimed > max(HELD_BY_ANY, file.stat().st_size * MOST_SHRUNK):
        raise ValueError(
            f"it claims {metadata.num_rows:.3g} rows of {metadata.num_columns} columns"
        )


def check_tensor(shape: tuple[int, ...], itemsize: int, stored: int) -> None:
    """Raise ValueError for a tensor that claims many more bytes than are stored, by repeating them."""
    claimed = math.prod(shape) * itemsize
    if claimed > max(HELD_BY_ANY, stored):
        raise ValueError(f"it claims {claimed:.3g} bytes by repeating {stored}")


log = logging.getLogger(__name__)

SHOWN_NAMES = 10
TABLES = (".csv", ".parquet")


def read_array(path: str | Path, labels: str | Path | None = None) -> NDArray[Any]:
    """Read the array of a file, for instance an embedding.

    Parameters
    ----------
    path : str or Path
        A ``.npy``, ``.npz``, ``.csv``, ``.parquet``, ``.safetensors``, ``.pt`` or ``.pth`` file. If it holds several
        arrays, ``FILE:NAME`` names the one to read; in a table, NAME is a column.
    labels : str or Path, optional
        Where the labels are: a column of the same table is left out.

    Returns
    -------
    ndarray
        The array as it is, but bfloat16 as float32. Of a table [n, d], all columns, which must hold numbers; a column
        of lists, if it is named or the only one, is the table [n, d] of their entries. A CSV file may have a header.
        One that pandas wrote is known by its names, 0, 1, 2, ...; a first column without a name is its index, and is
        left out.

    Raises
    ------
    InputError
        In one line that names the file: if it is missing, damaged, of another format, holds objects that only pickle
        could read, or several arrays (the names are then listed), or if a column of a table holds no numbers.
    """
    file, name = _file_and_name(path)
    if file.suffix.lower() not in TABLES:
        return _read(file, name)
    table = _read_table(file, name, _csv_of_numbers)
    if labels is not None and name is None:
        of_labels, class_column = _file_and_name(labels)
        if class_column is not None and of_labels.samefile(file):
            table = table.loc[:, [str(known) != class_column for known in table.columns]]
    if table.shape[1] == 1:
        column = _array(table.iloc[:, 0], file, table.columns[0])
        if column.ndim == 2:  # of lists
            return column
    try:
        check_columns(table, "the table")
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return _array(table, file)


def read_labels(path: str | Path, n: int) -> NDArray[Any]:
    """Read the labels of n samples from a file.

    Parameters
    ----------
    path : str or Path
        A file as for ``read_array``; in a table, one column of anything that can be told apart.
    n : int
        Number of samples; it tells whether the first line of a CSV file is a header.

    Returns
    -------
    ndarray
        The labels, not yet checked: [n] if the file is what it should be.

    Raises
    ------
    InputError
        As ``read_array``; for a table of several columns, their names are listed.
    """
    file, name = _file_and_name(path)
    if file.suffix.lower() not in TABLES:
        return _read(file, name)
    table = _read_table(file, name, lambda csv: _csv_of_text(csv, n))
    if table.shape[1] != 1:
        raise InputError(f"{file}: labels are one column; {_which_of(file, table.columns)}")
    return _array(table.iloc[:, 0], file, table.columns[0])


def _file_and_name(path: str | Path) -> tuple[Path, str | None]:
    """Split FILE:NAME, and make sure that the file is there and of a format that can be read."""
    formats = "|".join(suffix.removeprefix(".") for suffix in (*READERS, *TABLES))
    named = re.fullmatch(rf"(.+?\.(?:{formats})):(.+)", str(path), re.IGNORECASE | re.DOTALL)
    file, name = (
        (Path(named[1]), named[2]) if named and not Path(path).exists() else (Path(path), None)
    )
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file in it")
    try:
        file.open("rb").close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{shown_name(file, 200)}: cannot be read: {reason}") from None
    if file.suffix.lower() not in (*READERS, *TABLES):
        known = " ".join((*READERS, *TABLES))
        raise InputError(f"{file}: its format is unknown; save it as one of {known}")
    return file, name


def _read(file: Path, name: str | None) -> NDArray[Any]:
    try:
        array = READERS[file.suffix.lower()](file, name)
    except InputError:
        raise
    # What the libraries raise for damaged files is no part of what they promise.
    except Exception as error:
        raise InputError(_unreadable(file, error)) from None
    return _array(array, file, name)


def _read_table(
    file: Path, name: str | None, read_csv: "Callable[[Path], pd.DataFrame]"
) -> "pd.DataFrame":
    import pandas as pd

    try:
        if file.suffix.lower() == ".csv":
            table = read_csv(file)
        else:
            check_parquet(file)
            table = pd.read_parquet(file)
    except Exception as error:
        raise InputError(_unreadable(file, error)) from None
    first = str(table.columns[0])
    other = next((mark for mark in ";\t|" if mark in first), None)
    if table.shape[1] == 1 and other is not None:
        raise InputError(f"{file}: its columns are separated by {other!r}; separate them by commas")
    if name is None:
        return table
    matching = [column for column, known in enumerate(table.columns) if str(known) == name]
    if len(matching) != 1:
        many = "no column" if not matching else f"{len(matching)} columns"
        raise InputError(f"{file}: has {many} {name!r}; {_which_of(file, table.columns)}")
    return table.iloc[:, matching]


def _unreadable(file: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{file}: cannot be read: {error.strerror}"
    if "allow_pickle" in str(error):  # NumPy's advice, which is not to be had here
        return f"{file}: not a {file.suffix.lower()} file of numbers or text: such objects are never read, nor is junk"
    reason = shown_name(error, 200) or type(error).__name__
    return f"{file}: not a {file.suffix.lower()} file of numbers or text, or cut off: {reason}"


def _array(values: Any, file: Path, name: Any = None) -> NDArray[Any]:
    what = "the array" if name is None else f"{str(name)!r}"
    try:
        return as_array(values, what)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _npy(file: Path, name: str | None) -> Any:
    with file.open("rb") as opened:  # NumPy leaves a damaged file open
        if not zipfile.is_zipfile(opened):
            opened.seek(0)
            check_npy(opened, file.stat().st_size)
        opened.seek(0)
        array = np.load(opened, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file}: is an archive of arrays; rename it to {file.stem}.npz")
    _refuse_name(file, name)
    return array


def _npz(file: Path, name: str | None) -> Any:
    with file.open("rb") as opened:
        archive = np.load(opened, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise InputError(f"{file}: is a single array; rename it to {file.stem}.npy")
        if {"data", "shape", "format"} <= set(archive.files):  # as SciPy saves it
            raise InputError(
                f"{file}: is a sparse matrix; make it dense, by toarray(), and save that"
            )
        chosen = _chosen(file, name, archive.files)
        check_npz(file, chosen)
        return archive[chosen]


def _safetensors(file: Path, name: str | None) -> Any:
    from safetensors import safe_open

    with safe_open(file, framework="np") as tensors:
        chosen = _chosen(file, name, tensors.keys())
        if not tensors.get_slice(chosen).get_dtype().startswith(("BF", "F8")):
            return tensors.get_tensor(chosen)
    with safe_open(file, framework="pt") as tensors:  # NumPy has no such numbers
        return tensors.get_tensor(chosen)


def _pt(file: Path, name: str | None) -> Any:
    import pickle

    import torch

    if zipfile.is_zipfile(file):
        check_zip(file, largest_ratio=1)  # PyTorch compresses nothing
    try:
        with warnings.catch_warnings():
            # Of sparse tensors, which are refused with words of ours.
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file}: not a {file.suffix} file of tensors alone, or cut off; other objects are never read, "
            "because that could run code: save the tensor itself"
        ) from None
    if isinstance(content, Mapping):
        by_name = {str(key): value for key, value in content.items()}
        content = by_name[_chosen(file, name, by_name)]
    else:
        _refuse_name(file, name)
    if (
        isinstance(content, torch.Tensor)
        and content.layout == torch.strided
        and not content.is_meta
    ):
        check_tensor(content.shape, content.element_size(), content.untyped_storage().nbytes())
    return content


READERS: dict[str, Callable[[Path, str | None], Any]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pt": _pt,
    ".pth": _pt,
}


def _csv_of_numbers(file: Path) -> "pd.DataFrame":
    """Read a CSV file of which the first line may be a header."""
    import pandas as pd

    options: dict[str, Any] = {"index_col": False, "skipinitialspace": True, "low_memory": False}
    first_line = pd.read_csv(file, header=None, dtype=str, nrows=1, keep_default_na=False).iloc[0]
    first = [str(cell).strip() for cell in first_line]
    with warnings.catch_warnings():
        # Of rows that are longer than the header.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(file, header=0, **options)
        # Without a header, the first line must be numbers, or empty where a value is missing.
        if _is_numbered(first) and (
            len(first) > 2 or any(dtype.kind == "f" for dtype in table.dtypes)
        ):
            if first[0] != "":
                line = shown_name(",".join(first))
                log.warning(
                    f"{file}: its first line, {line}, is taken for names of columns, as pandas writes them; "
                    "if it is data, put a line of names above it"
                )
            return _without_index(table, first)
        if all(_is_number(cell) for cell in first if cell):
            return pd.read_csv(file, header=None, **options)
    return _without_index(table, first)


def _is_numbered(first: list[str]) -> bool:
    """Whether a line is the header 0,1,2,... that pandas writes for columns without names, with an index or not."""
    names = first[1:] if first[0] == "" else first
    return names == [str(number) for number in range(len(names))]


def _stripped(cells: list[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def _csv_of_text(file: Path, n: int) -> "pd.DataFrame":
    """Read a CSV file of n labels, in which "NA" may be a class: numbers where all of a column are, else text."""
    import pandas as pd

    with file.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.reader(text, skipinitialspace=True)
        lines = [_stripped(line) for line in reader]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError("it is empty")
    width = len(lines[0])
    for number, line in enumerate(lines, start=1):
        if len(line) != width and line:
            raise ValueError(f"row {number} has {len(line)} columns where the first has {width}")
    cells = pd.DataFrame([line or [""] * width for line in lines], dtype=object)
    first, rest = lines[0], cells.iloc[1:]
    has_header = len(lines) == n + 1
    for position, cell in enumerate(first):
        has_header |= not _is_number(cell) and _all_numbers(rest[position])
    if has_header:
        cells = _without_index(rest.set_axis(first, axis=1), first)
    columns = [_as_numbers(cells.iloc[:, position]) for position in range(cells.shape[1])]
    return pd.concat(columns, axis=1)


def _without_index(table: "pd.DataFrame", header: Iterable[str]) -> "pd.DataFrame":
    """Leave out the index that pandas writes as a first column without a name."""
    return table.iloc[:, 1:] if table.shape[1] > 1 and next(iter(header)) == "" else table


def _as_numbers(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Make a column of text one of numbers, if all of it is; an empty cell is a missing label."""
    import pandas as pd

    filled = column.where(column != "", None)
    return pd.to_numeric(filled) if _all_numbers(column) else filled


def _all_numbers(column: "pd.Series[Any]") -> bool:
    filled = [cell for cell in column if cell]
    return bool(filled) and all(_is_number(cell) and not _is_code(cell) for cell in filled)


def _is_code(cell: str) -> bool:
    """Whether it begins with a zero that a number would lose: 001 is another label than 1."""
    return re.match(r"[+-]?0\d", cell) is not None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000 as a number, and people do not


def _chosen(file: Path, name: str | None, names: Iterable[str]) -> str:
    known = list(names)
    if name is not None and name in known:
        return name
    if name is None and len(known) == 1:
        return known[0]
    problem = "holds several arrays" if name is None else f"has no array {name!r}"
    raise InputError(f"{file}: {problem}; {_which_of(file, known)}")


def _which_of(file: Path, names: Iterable[Any]) -> str:
    known = [shown_name(name) for name in names]
    if not known:
        return "it is empty"
    shown = ", ".join(known[:SHOWN_NAMES])
    more = f" and {len(known) - SHOWN_NAMES} more" if len(known) > SHOWN_NAMES else ""
    return f"write {file}:NAME with one of {shown}{more}"


def _refuse_name(file: Path, name: str | None) -> None:
    if name is not None:
        raise InputError(f"{file}: holds a single array, which has no name; leave out ':{name}'")
