"""Tables as people write them: CSV, Parquet, and JSON in a cell."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .text import is_printable, shortened, shown

if TYPE_CHECKING:
    import pandas as pd


Line = tuple[int, list[str]]
"""Its number in a CSV file, in which the header is line 1, and its stripped cells."""
Row = tuple[int, dict[str, str]]
"""The number of its line, and its cells by the columns' names."""

MOST_BYTES = (
    200_000_000  # of a file; a table of ImageNet's 1.28 million training images takes 60 MB
)
MOST_COLUMNS = 1_000
LONGEST_CELL = 10_000  # characters
ROWS_AT_ONCE = 256  # so that no more than so many copies of a long cell are in memory


def read_table(
    path: Path, what: str, renamed: Mapping[str, str] = {}
) -> tuple[list[str], Iterator[Row]]:
    """The names of a table's columns, and its rows; blank ones are left out, and a short one ends in empty cells.

    Parameters
    ----------
    path
        A Parquet file, by its suffix, of text and numbers; else a CSV file in UTF-8. Both have a header.
    what
        What it should be, in the words of an error.
    renamed
        What columns are called today, by the names that they once had.

    Raises
    ------
    InputError
        Names the line that is wrong, perhaps only while the rows are read.
    """
    _refuse_huge(path)
    lines = (
        _parquet_lines(path, what) if path.suffix.lower() == ".parquet" else _csv_lines(path, what)
    )
    header = next((cells for _, cells in lines if any(cells)), [])
    header = [renamed.get(name, name) for name in header]
    _check_header(header, path)
    return header, _rows(header, lines, path)


def _refuse_huge(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{shortened(str(path), 300)}: cannot be read: {error.strerror}") from None
    if size > MOST_BYTES:
        raise InputError(
            f"{path}: has {size / 1e6:.0f} MB, and a table of text at most {MOST_BYTES / 1e6:.0f}"
        )


def _csv_lines(path: Path, what: str) -> Iterator[Line]:
    number = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            for cells in reader:
                number = reader.line_num
                yield number, [cell.strip() for cell in cells]
    except (UnicodeError, csv.Error, OSError) as error:
        where = f"after line {number}: " if number else ""
        raise InputError(
            f"{path}: {where}cannot be read as {what}, a table in UTF-8: {_reason(error)}"
        ) from None


def _parquet_lines(path: Path, what: str) -> Iterator[Line]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [
                name for name in file.schema_arrow.names if not name.startswith("__index_level_")
            ]
            yield 1, [name.strip() for name in names]
            as_text = [
                _text_of(file.schema_arrow.field(name).type, f"{path}: the column {shown(name)}")
                for name in names
            ]
            number = 1
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
                columns = [
                    map(text, column.to_pylist())
                    for text, column in zip(as_text, batch.columns, strict=True)
                ]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield number, [cell.strip() for cell in cells]
    except InputError:
        raise
    # What pyarrow raises for damaged files is no part of what it promises.
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as {what}, a table in Parquet: {_reason(error)}"
        ) from None


def _text_of(kind: Any, column: str) -> Callable[[Any], str]:
    """What makes the values of an Arrow type the text that a CSV file has; raises InputError for a type of others."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return lambda value: value or ""
    if types.is_floating(kind):
        return lambda value: "" if value is None or math.isnan(value) else str(value)
    if (
        types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
        or types.is_null(kind)
    ):
        return lambda value: "" if value is None else str(value)
    raise InputError(f"{column} holds {shortened(str(kind))}; it must hold text or numbers")


def _check_header(names: Sequence[str], path: Path) -> None:
    if len(names) > MOST_COLUMNS:
        raise InputError(f"{path}: has {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
    for name in names:
        if len(name) > LONGEST_CELL:
            raise InputError(
                f"{path}, line 1: a column's name has {len(name):,} characters; shorten it"
            )
        if not is_printable(name):
            raise InputError(
                f"{path}, line 1: the column {shown(name)} needs a plain name: take odd characters out"
            )
        if names.count(name) > 1:
            raise InputError(
                f"{path}, line 1: {names.count(name)} columns are named {shown(name)}; rename all but one"
            )


def _rows(header: Sequence[str], lines: Iterator[Line], path: Path) -> Iterator[Row]:
    for number, cells in lines:
        where = f"{path}, line {number}"
        while len(cells) > len(header) and not cells[-1]:  # as after a comma at the line's end
            cells.pop()
        if len(cells) > len(header):
            told = "put quotes around text with a comma in it"
            raise InputError(
                f"{where}: has {len(cells)} cells, and the header {len(header)}; {told}"
            )
        for name, cell in zip(header, cells, strict=False):
            _check_cell(cell, name, where)
        if any(cells):
            missing = [""] * (len(header) - len(cells))
            yield number, dict(zip(header, [*cells, *missing], strict=True))


def _check_cell(cell: str, column: str, where: str) -> None:
    if len(cell) > LONGEST_CELL:
        raise InputError(
            f"{where}: {shown(column)} has {len(cell):,} characters; at most {LONGEST_CELL:,} are read"
        )
    if not is_printable(cell):
        raise InputError(
            f"{where}: {shown(column)} = {shown(cell)} holds a control character; take it out"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return shortened(str(error), 150) or type(error).__name__


DEEPEST = 20  # objects and lists within each other
LARGEST_INTEGER = 2**63


def json_object(text: str) -> dict[str, Any]:
    """The object that the text is.

    Raises
    ------
    ValueError
        Says what is wrong, without the text's name: it is no JSON, no object, nested more than 20 deep; a key stands
        there twice; a number is not finite or a whole one not of 64 bits; text holds control characters.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if not isinstance(value, dict):
        raise ValueError(f'must be a JSON object such as {{"num_classes": 10}}, not {shown(value)}')
    _check(value, depth=1)
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has {shown(twice)} twice; leave one out")
    return values


def _integer(digits: str) -> int:
    """A whole number of 64 bits; Python itself refuses to read thousands of digits."""
    if len(digits.lstrip("-")) > len(str(LARGEST_INTEGER)) or abs(int(digits)) >= LARGEST_INTEGER:
        raise ValueError(f"holds the whole number {shown(digits)}, beyond 64 bits")
    return int(digits)


def _check(value: Any, depth: int) -> None:
    if isinstance(value, dict | list) and depth > DEEPEST:
        raise ValueError(_too_deep())
    if isinstance(value, dict):
        for name, part in value.items():
            _check(name, depth)
            _check(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _check(part, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"holds {value}, which is not finite")
    elif isinstance(value, str) and not is_printable(value):
        raise ValueError(f"holds a control character in {shown(value)}; take it out")


def _too_deep() -> str:
    return f"is nested more than {DEEPEST} deep"


FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV, with an apostrophe before each text that a spreadsheet would take for a formula.

    A carriage return in a text becomes a line feed: csv would leave it without quotes, and readers end the row there.
    """
    return table.rename(columns=_harmless).map(_harmless).to_csv(index=False)


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    apostrophe = "'" if cell.startswith(FORMULA_BEGINS) else ""
    return apostrophe + cell.replace("\r\n", "\n").replace("\r", "\n")
