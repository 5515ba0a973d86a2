"""Parquet files whose pages carry checksums, which are verified whenever one is read."""

from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .files import write_atomically

# A table may take the larger of the two: ANY_TABLE, or MAX_FOR_A_BYTE times the size of its file.
ANY_TABLE = 2**30  # bytes
MAX_FOR_A_BYTE = 1100  # a ratio: bytes of memory per byte of the file


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table, whole or not at all, with a checksum for each page."""
    # For one row, dictionaries and statistics take longer than its values.
    has_many = table.num_rows > 1
    content = pa.BufferOutputStream()  # a file object would be called for each page
    pq.write_table(
        table,
        content,
        write_page_checksum=True,
        use_dictionary=has_many,
        write_statistics=has_many,
    )
    write_atomically(path, lambda file: file.write(content.getvalue()))


def read_parquet(path: Path) -> pa.Table:
    """Read a table and verify the checksums of its pages.

    Raises
    ------
    OSError, ValueError, pyarrow.ArrowException
        When the file is missing, unreadable, damaged or not a Parquet file.
    """
    if not path.is_file():  # opening a pipe would block forever
        raise OSError("not a file" if path.exists() else "there is no such file")
    with path.open("rb") as file:
        _refuse_claims(file, path.stat().st_size)
        return pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)


def _refuse_claims(file: BinaryIO, size: int) -> None:
    """Raise ValueError for a file that takes far more memory than its size explains.

    A few bytes may encode billions of equal numbers, or one long text that every row repeats.
    """
    parquet = pq.ParquetFile(file)
    metadata, schema = parquet.metadata, parquet.schema_arrow
    most = max(ANY_TABLE, size * MAX_FOR_A_BYTE)
    claimed = 8 * metadata.num_rows * len(schema)
    if any(pa.types.is_nested(field.type) for field in schema):
        claimed += 8 * _values_of(metadata)
    elif claimed <= most < metadata.num_rows * size * MAX_FOR_A_BYTE:
        # Texts can exceed the limit only if each row may repeat one that takes up the whole file.
        texts = [field.name for field in schema if not pa.types.is_primitive(field.type)]
        claimed += sum(_bytes_of_texts(file, name) for name in texts)
    if claimed > most:
        raise ValueError(f"{size} bytes that claim to be {claimed:.3g} bytes of values")


def _values_of(metadata: pq.FileMetaData) -> int:
    """Return the number of values in a file whose rows may hold several per column.

    Call it only for nested columns: it asks pyarrow about each column, which crashes the process on some damaged files.
    """
    total = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        total += sum(group.column(place).num_values for place in range(group.num_columns))
    return total


def _bytes_of_texts(file: BinaryIO, name: str) -> int:
    """Return the bytes that a text column takes in memory; 0 for a column of another type."""
    parquet = pq.ParquetFile(file, read_dictionary=[name])
    codes = [field.name for field in parquet.schema_arrow if pa.types.is_dictionary(field.type)]
    if name not in codes:
        return 0
    total = 0
    for chunk in parquet.read(columns=[name], use_threads=False).column(0).chunks:
        lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
        total += pc.sum(lengths).as_py() or 0
    return total
