"""One row as a Parquet file that tells when it has been damaged."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dsmi_zoo._util.files import write_atomically
from dsmi_zoo.data_catalog.models.entry import CURRENT_NAMES

from .schema import COLUMNS

ALWAYS_THERE = (
    "model", "img_size", "status", "row_id", "embedding_id", "embedding_sha256", "own_measures", "finished_at",
)  # fmt: skip
DIGEST = b"dsmi_zoo.row_sha256"
"""The key of a row's digest in the file's metadata: sums of pages say nothing of names and types."""

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
    table = table.replace_schema_metadata({DIGEST: _digest(table)})
    write_atomically(path, lambda file: pq.write_table(table, file, write_page_checksum=True))


def arrow_schema(names: Iterable[str]) -> pa.Schema:
    """The columns of rows, those of the schema first; ``names`` beyond it are numbers."""
    fields = [pa.field(column.name, _ARROW_TYPES[column.kind]) for column in COLUMNS]
    further = sorted(set(names) - {field.name for field in fields})
    return pa.schema([*fields, *(pa.field(name, pa.float64()) for name in further)])


def read_row_file(path: Path) -> dict[str, Any]:
    """The row that a file holds, with null for what its version did not have.

    Raises
    ------
    ValueError, OSError, pyarrow.ArrowException
        When it is no row, or not as it was written.
    """
    if path.suffix != ".parquet":
        raise ValueError("not a Parquet file")
    if not path.is_file():
        raise ValueError("not a file")  # to open a pipe would take for ever
    with path.open("rb") as file:
        table = pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
    renamed = table.rename_columns([CURRENT_NAMES.get(name, name) for name in table.column_names])
    _refuse_other_tables(renamed)
    _refuse_damage(table)
    # An older version's row lacks what was added since; its numbers, and its embedding, are as good as ever.
    return {column.name: None for column in COLUMNS} | renamed.to_pylist()[0]


def _refuse_other_tables(table: pa.Table) -> None:
    lacking = [name for name in ALWAYS_THERE if name not in table.column_names]
    if lacking or table.num_rows != 1:
        raise ValueError(
            f"no row of dsmi-zoo: {table.num_rows} rows, lacks {', '.join(lacking) or 'no column'}"
        )
    types = {column.name: _ARROW_TYPES[column.kind] for column in COLUMNS}
    wrong = [
        field.name for field in table.schema if field.type != types.get(field.name, pa.float64())
    ]
    if wrong:
        raise ValueError(f"no row of dsmi-zoo: wrong type of {', '.join(wrong)}")


def _refuse_damage(table: pa.Table) -> None:
    metadata = table.schema.metadata or {}
    if not metadata:  # rows of the first versions have no digest
        return
    if metadata.get(DIGEST) != _digest(table):
        raise ValueError("damaged: its values are not those that were written")


def _digest(table: pa.Table) -> bytes:
    """The hash of a row's names and values; those that a version did not have are no part of it."""
    text = json.dumps(table.to_pylist()[0], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest().encode()
