"""One row as a Parquet file that shows whether it has been damaged."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from dsmi_zoo._util.parquet import read_parquet, write_parquet
from dsmi_zoo.data_catalog.models.entry import CURRENT_NAMES

from .schema import COLUMNS

ALWAYS_THERE = (
    "model", "img_size", "status", "row_id", "embedding_id", "embedding_sha256", "own_measures", "finished_at",
)  # fmt: skip
DIGEST = b"dsmi_zoo.row_sha256"
"""The key of a row's digest in the file's metadata: checksums of pages do not cover names and types."""

_ARROW_TYPES = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("ms", tz="UTC"),
}


def write_row_file(path: Path, row: Mapping[str, Any]) -> None:
    """Store one row; columns beyond the schema are numbers."""
    schema = arrow_schema(row)
    whole_row = {name: row.get(name) for name in schema.names}
    table = pa.Table.from_pylist([whole_row], schema=schema)
    write_parquet(path, table.replace_schema_metadata({DIGEST: _digest(table)}))


def arrow_schema(names: Iterable[str]) -> pa.Schema:
    """Return the columns of rows, those of the schema first; further ``names`` are numbers."""
    fields = [pa.field(column.name, _ARROW_TYPES[column.kind]) for column in COLUMNS]
    further = sorted(set(names) - {field.name for field in fields})
    return pa.schema([*fields, *(pa.field(name, pa.float64()) for name in further)])


def read_row_file(path: Path) -> dict[str, Any]:
    """Read the row of a file, with null for what its version did not have.

    Raises
    ------
    ValueError, OSError, pyarrow.ArrowException
        When the file is not a row, or is damaged.
    """
    if path.suffix != ".parquet":
        raise ValueError("not a Parquet file")
    table = read_parquet(path)
    rows = checked_rows(table)
    if len(rows) != 1:
        raise ValueError(f"not a row of dsmi-zoo: {len(rows)} rows")
    metadata = table.schema.metadata or {}  # rows of the first versions have none
    if metadata and metadata.get(DIGEST) != _digest(table):
        raise ValueError("damaged: its values are not those that were written")
    # An older version's row lacks newer columns; its numbers and its embedding are still valid.
    return {column.name: None for column in COLUMNS} | rows[0]


def checked_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows by the current names of their columns.

    Raises
    ------
    ValueError
        When the table is missing a column that every row has, or a column has the wrong type.
    """
    table = table.rename_columns([CURRENT_NAMES.get(name, name) for name in table.column_names])
    lacking = [name for name in ALWAYS_THERE if name not in table.column_names]
    if lacking:
        raise ValueError(f"not a row of dsmi-zoo: lacks {', '.join(lacking)}")
    expected = arrow_schema(table.column_names)
    wrong = [field.name for field in table.schema if field.type != expected.field(field.name).type]
    if wrong:
        raise ValueError(f"not a row of dsmi-zoo: wrong type of {', '.join(wrong)}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _digest(table: pa.Table) -> bytes:
    """Return the hash of a row's names and values, without the columns that its version did not have."""
    text = json.dumps(table.to_pylist()[0], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest().encode()
