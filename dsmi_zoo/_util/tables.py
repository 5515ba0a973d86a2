"""Read users' files: tables in CSV and Parquet, JSON in a cell, and TOML."""

import csv
import json
import re
import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from .errors import InputError
from .text import is_printable, shortened, shown

Line = tuple[int, list[str]]
"""A line's number, 1 for the header, and its cells."""
Row = tuple[int, dict[str, str]]
"""A line's number, and its cells by column name."""

MAX_CELL_LENGTH = 10_000  # characters
MAX_HEADER_LENGTH = 1_000_000
ROWS_AT_ONCE = 256  # bounds the copies of a long cell in memory


def read_table(
    path: Path, what: str, renamed: Mapping[str, str] = {}
) -> tuple[list[str], Iterator[Row]]:
    """Return a table's column names and its rows as text; blank rows are skipped, short ones padded.

    Parameters
    ----------
    path
        A Parquet file (by its suffix) of text and numbers, or else a text file in UTF-8 or UTF-16 whose cells are
        separated by commas, tabs or semicolons, as in the header. Both kinds have a header.
    what
        What the file should be, for error messages.
    renamed
        Current column names by their former names.

    Raises
    ------
    InputError
        For an invalid table, naming the line and column; may be raised while the rows are read.
    """
    is_parquet = path.suffix.lower() == ".parquet"
    lines = _parquet_lines(path, what) if is_parquet else _csv_lines(path, what)
    header = next((cells for _, cells in lines if any(cells)), [])
    header = [renamed.get(name, name) for name in header]
    for name in header:
        where = f"{path}, line 1"
        if not is_printable(name):
            raise InputError(
                f"{where}: the column {shown(name)} needs a plain name: remove control characters"
            )
        if header.count(name) > 1:
            raise InputError(
                f"{where}: {header.count(name)} columns are named {shown(name)}; rename all but one"
            )
    return header, _rows(header, lines, path)


def _rows(header: list[str], lines: Iterator[Line], path: Path) -> Iterator[Row]:
    for number, cells in lines:
        where = f"{path}, line {number}"
        while len(cells) > len(header) and not cells[-1]:  # a comma at the line's end
            cells.pop()
        if len(cells) > len(header):
            raise InputError(
                f"{where}: has {len(cells)} cells, and the header {len(header)}; "
                "put quotes around text with a comma in it"
            )
        for name, cell in zip(header, cells, strict=False):
            if len(cell) > MAX_CELL_LENGTH:
                raise InputError(
                    f"{where}: {shown(name)} has {len(cell):,} characters; at most {MAX_CELL_LENGTH:,} are read"
                )
            if not is_printable(cell):
                raise InputError(
                    f"{where}: {shown(name)} = {shown(cell)} holds a control character; remove it"
                )
        if any(cells):
            missing = [""] * (len(header) - len(cells))
            yield number, dict(zip(header, [*cells, *missing], strict=True))


def _csv_lines(path: Path, what: str) -> Iterator[Line]:
    number = 0
    try:
        with path.open("rb") as file:
            is_utf16 = file.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE)
        with path.open(newline="", encoding="utf-16" if is_utf16 else "utf-8-sig") as file:
            separator, skipped = _separator(file)
            file.seek(0)
            for _ in range(skipped):
                file.readline()
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
            for cells in reader:
                number = skipped + reader.line_num
                yield number, [cell.strip() for cell in cells]
    except (UnicodeError, csv.Error, OSError) as error:
        where = f"after line {number}: " if number else ""
        reason = shortened(str(error), 150)
        if isinstance(error, UnicodeError):
            reason = "other bytes are in it; save it as CSV UTF-8"
        raise InputError(
            f"{path}: {where}cannot be read as {what}, a table in UTF-8: {reason}"
        ) from None


def _separator(file: TextIO) -> tuple[str, int]:
    """Return the separator of the cells, and the number of lines before the header.

    The separator is the one in Excel's line ``sep=;``, else a tab or a semicolon if the header holds more of these than
    commas outside quotes, else the comma.
    """
    header, skipped = "", 0
    while not header.strip():
        header = file.readline(MAX_HEADER_LENGTH)
        if not header:
            break
        declared = re.fullmatch(r"sep=([,;\t])", header.rstrip("\r\n"), re.IGNORECASE)
        if declared:
            return declared[1], skipped + 1
        skipped += 1
    names = re.sub(r'"[^"]*"', "", header.strip())
    for separator in ("\t", ";"):
        if names.count(separator) > names.count(","):
            return separator, 0
    return ",", 0


def _parquet_lines(path: Path, what: str) -> Iterator[Line]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            names = [name for name in names if not name.startswith("__index_level_")]
            yield 1, [name.strip() for name in names]
            number = 1
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
                columns = [
                    _column_text(values, f"{path}: the column {shown(name)}")
                    for name, values in zip(names, batch.columns, strict=True)
                ]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield number, list(cells)
    except InputError:
        raise
    except Exception as error:  # pyarrow does not document what it raises for damaged files
        reason = shortened(str(error), 150) or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as {what}, a table in Parquet: {reason}"
        ) from None


def _column_text(values: Any, column: str) -> list[str]:
    """Return an Arrow array as the text that a CSV file would have; empty for nulls and NaN."""
    cells: list[str] = []
    for value in values.to_pylist():
        if value is None or value != value:
            cells.append("")
        elif isinstance(value, str | int | float | Decimal):
            cells.append(str(value).strip())
        else:
            raise InputError(
                f"{column} holds {shortened(str(values.type))}; it must hold text or numbers"
            )
    return cells


def json_object(text: str, column: str) -> dict[str, Any]:
    """Return the JSON object in a cell of a column.

    Raises
    ------
    ValueError
        For text that is not a JSON object, or has numbers or characters that JSON cannot store.
    """
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{column} is not plain JSON: {shortened(str(error))}") from None
    if not isinstance(value, dict):
        raise ValueError(
            f'{column} must be a JSON object such as {{"num_classes": 10}}, not {shown(value)}'
        )
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises
    ------
    InputError
        For a file that cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{shortened(str(path), 300)}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also not UTF-8, or nested too deep
        raise InputError(f"{path}: cannot be read as TOML: {shortened(str(error), 200)}") from None
