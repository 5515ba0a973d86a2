"""Readers of embeddings and labels in files. Nothing in a file is ever executed: pickled objects are refused."""

import logging
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.tensor_files import format_problem, is_safetensors, load_pytorch

from .core.conversion import as_array, as_one_line, check_columns

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SHOWN_NAMES = 10
TABLES = (".csv", ".parquet")
ANY_TENSOR = 2**30  # bytes of memory that a tensor may take, whatever its file's size


def read_array(path: str | Path, labels: str | Path | None = None) -> NDArray[Any]:
    """Read the array of a file, for instance an embedding.

    Parameters
    ----------
    path : str or Path
        A ``.npy``, ``.npz``, ``.csv``, ``.parquet``, ``.safetensors``, ``.pt`` or ``.pth`` file. If it holds several
        arrays, ``FILE:NAME`` names the one to read; in a table, NAME is a column.
    labels : str or Path, optional
        The file of the labels, as for ``read_labels``; a label column of the same table is left out.

    Returns
    -------
    ndarray
        The array as it is, except that bfloat16 becomes float32. A table [n, d] gives all columns, which must hold
        numbers; a column of lists, if it is named or the only one, gives the table [n, d] of their entries. A CSV file
        may have a header. A first column without a name is the index that pandas writes, and is left out.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another format, holds pickled objects or several arrays (whose names are
        listed), or if a column of a table does not hold numbers. The message is one line that names the file.
    """
    file, name = _file_and_name(path)
    of_labels, class_column = (file, None) if labels is None else _file_and_name(labels)
    with _one_line(file):
        if file.suffix.lower() not in TABLES:
            return as_array(READERS[file.suffix.lower()](file, name), _quoted(name))
        table = _table(file, name, _csv_of_numbers)
        if name is None and class_column is not None and of_labels.samefile(file):
            table = table.loc[:, [str(known) != class_column for known in table.columns]]
        if table.shape[1] == 1:
            column = as_array(table.iloc[:, 0], _quoted(table.columns[0]))
            if column.ndim == 2:  # of lists
                return column
        check_columns(table, "the table")
        return as_array(table, "the table")


def read_labels(path: str | Path, n: int) -> NDArray[Any]:
    """Read the labels of n samples from a file.

    Parameters
    ----------
    path : str or Path
        A file as for ``read_array``; in a table, one column of any type.
    n : int
        Number of samples, which shows whether the first line of a CSV file is a header.

    Returns
    -------
    ndarray
        The labels, not yet checked: [n] if the file is right.

    Raises
    ------
    InputError
        As for ``read_array``; for a table of several columns, their names are listed.
    """
    file, name = _file_and_name(path)
    with _one_line(file):
        if file.suffix.lower() not in TABLES:
            return as_array(READERS[file.suffix.lower()](file, name), _quoted(name))
        table = _table(file, name, lambda csv: _csv_of_text(csv, n))
        if table.shape[1] != 1:
            raise InputError(f"labels are one column; {_which_of(file, table.columns)}")
        return as_array(table.iloc[:, 0], _quoted(table.columns[0]))


def _file_and_name(path: str | Path) -> tuple[Path, str | None]:
    """Split FILE:NAME; raise InputError if the file is missing or of an unknown format."""
    known = (*READERS, *TABLES)
    formats = "|".join(suffix.removeprefix(".") for suffix in known)
    named = re.fullmatch(rf"(.+?\.(?:{formats})):(.+)", str(path), re.IGNORECASE | re.DOTALL)
    file, name = Path(path), None
    if named and not file.exists():
        file, name = Path(named[1]), named[2]
    with _one_line(file):
        if file.is_dir():
            raise InputError("is a folder; name a file in it")
        file.open("rb").close()
        if file.suffix.lower() not in known:
            raise InputError(f"its format is unknown; save it as one of {' '.join(known)}")
    return file, name


@contextmanager
def _one_line(file: Path) -> Iterator[None]:
    """Turn any error into an InputError of one line that names the file."""
    shown = as_one_line(file, 200)
    try:
        yield
    except InputError as error:
        raise InputError(f"{shown}: {error}") from None
    # Libraries do not document what they raise for damaged files, or for more than memory holds.
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{shown}: cannot be read: {error.strerror}") from None
        reason = as_one_line(error, 200) or type(error).__name__
        if isinstance(error, pickle.UnpicklingError) or "pickle" in reason:
            reason = "pickled objects are never read, because that could run code"
        kind = file.suffix.lower()
        raise InputError(f"{shown}: not a {kind} file of numbers or text: {reason}") from None


def _quoted(name: Any) -> str:
    return "the array" if name is None else f"{str(name)!r}"


def _numpy(file: Path, name: str | None) -> Any:
    with file.open("rb") as opened:  # NumPy leaves a damaged archive open
        if opened.read(2) == b"PK":
            opened.seek(0)
            archive = np.load(opened, allow_pickle=False)
            return archive[_chosen(file, name, archive.files)]
    # Mapped, so that a file that claims to be larger than it is takes no memory.
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind == "V":
        raise InputError("holds records; save a plain array")
    _refuse_name(name)
    return np.array(array)


def _tensors(file: Path, name: str | None) -> Any:
    """Read a PyTorch or safetensors file, recognised by its content, not by its name."""
    problem = format_problem(file, "save the array by torch.save or numpy.save")
    if problem:
        raise InputError(problem)
    return _safetensors(file, name) if is_safetensors(file) else _pt(file, name)


def _safetensors(file: Path, name: str | None) -> Any:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:  # NumPy has no bfloat16
        return tensors.get_tensor(_chosen(file, name, tensors.keys()))


def _pt(file: Path, name: str | None) -> Any:
    import torch

    content = load_pytorch(file)
    if isinstance(content, Mapping):
        by_name = {str(key): value for key, value in content.items()}
        content = by_name[_chosen(file, name, by_name)]
    else:
        _refuse_name(name)
    if isinstance(content, torch.Tensor):
        # One stored number may stand for all of a tensor.
        claimed, stored = content.numel() * content.element_size(), file.stat().st_size
        if claimed > max(ANY_TENSOR, stored):
            raise InputError(f"{stored} bytes that claim to be a tensor of {claimed:.3g} bytes")
    return content


READERS: dict[str, Callable[[Path, str | None], Any]] = {
    ".npy": _numpy,
    ".npz": _numpy,
    ".safetensors": _tensors,
    ".pt": _tensors,
    ".pth": _tensors,
}


def _table(
    file: Path, name: str | None, read_csv: "Callable[[Path], pd.DataFrame]"
) -> "pd.DataFrame":
    from dsmi_zoo._util.parquet import read_parquet

    table = read_csv(file) if file.suffix.lower() == ".csv" else read_parquet(file).to_pandas()
    first = str(table.columns[0])
    other = next((mark for mark in ";\t|" if mark in first), None)
    if table.shape[1] == 1 and other is not None:
        raise InputError(f"its columns are separated by {other!r}; separate them by commas")
    if name is None:
        return table
    matching = [column for column, known in enumerate(table.columns) if str(known) == name]
    if len(matching) != 1:
        many = "no column" if not matching else f"{len(matching)} columns"
        raise InputError(f"has {many} {name!r}; {_which_of(file, table.columns)}")
    return table.iloc[:, matching]


def _csv_of_numbers(file: Path) -> "pd.DataFrame":
    """Read a CSV file whose first line may be a header."""
    import pandas as pd

    options: dict[str, Any] = {"index_col": False, "skipinitialspace": True, "low_memory": False}
    first_line = pd.read_csv(file, header=None, dtype=str, nrows=1, keep_default_na=False).iloc[0]
    first = [str(cell).strip() for cell in first_line]
    with warnings.catch_warnings():
        # For rows that are longer than the header.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(file, header=0, **options)
        names = first[1:] if first[0] == "" else first
        # pandas calls columns without names 0, 1, 2, ...; two whole numbers may as well be data.
        is_numbered = names == [str(number) for number in range(len(names))]
        is_numbered &= len(first) > 2 or any(dtype.kind == "f" for dtype in table.dtypes)
        if not is_numbered and all(_is_number(cell) for cell in first if cell):
            return pd.read_csv(file, header=None, **options)
    if is_numbered and first[0] != "":
        log.warning(
            f"{file}: its first line, {as_one_line(','.join(first))}, is taken for names of columns, as pandas writes "
            "them; if it is data, put a line of names above it"
        )
    return _without_index(table, first)


def _csv_of_text(file: Path, n: int) -> "pd.DataFrame":
    """Read a CSV file of n labels, in which "NA" may be a class: columns of numbers as numbers, others as text."""
    import pandas as pd

    cells = pd.read_csv(
        file,
        header=None,
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
        skip_blank_lines=False,
        encoding="utf-8-sig",
    )
    cells = cells.fillna("").apply(lambda column: column.str.strip())
    filled_rows = np.flatnonzero((cells != "").any(axis=1))
    cells = cells.iloc[: filled_rows[-1] + 1]
    first, rest = cells.iloc[0].tolist(), cells.iloc[1:]
    has_header = len(cells) == n + 1
    for position, cell in enumerate(first):
        has_header |= not _is_number(cell) and _all_numbers(rest[position])
    if has_header:
        cells = _without_index(rest.set_axis(first, axis=1), first)
    columns = []
    for _, column in cells.items():
        filled = column.astype(object).where(column != "", None)
        columns.append(pd.to_numeric(filled) if _all_numbers(column) else filled)
    return pd.concat(columns, axis=1)


def _without_index(table: "pd.DataFrame", header: list[str]) -> "pd.DataFrame":
    """Leave out the index that pandas writes as a first column without a name."""
    return table.iloc[:, 1:] if table.shape[1] > 1 and header[0] == "" else table


def _all_numbers(column: Iterable[str]) -> bool:
    """Return whether all filled cells are numbers without leading zeros: 001 and 1 are different labels."""
    filled = [cell for cell in column if cell]
    return bool(filled) and all(
        _is_number(cell) and not re.match(r"[+-]?0\d", cell) for cell in filled
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000 as a number, but in a CSV file it is text


def _chosen(file: Path, name: str | None, names: Iterable[str]) -> str:
    known = list(names)
    if name in known:
        return str(name)
    if name is None and len(known) == 1:
        return known[0]
    problem = "holds several arrays" if name is None else f"has no array {name!r}"
    raise InputError(f"{problem}; {_which_of(file, known)}")


def _which_of(file: Path, names: Iterable[Any]) -> str:
    known = [as_one_line(name) for name in names]
    if not known:
        return "it is empty"
    more = f" and {len(known) - SHOWN_NAMES} more" if len(known) > SHOWN_NAMES else ""
    return f"write {file}:NAME with one of {', '.join(known[:SHOWN_NAMES])}{more}"


def _refuse_name(name: str | None) -> None:
    if name is not None:
        raise InputError(f"holds a single array, which has no name; leave out ':{name}'")
