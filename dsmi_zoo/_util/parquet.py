"""Parquet files whose pages carry checksums, which are verified whenever one is read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .files import write_atomically


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table, whole or not at all, with a checksum for each page."""
    write_atomically(path, lambda file: pq.write_table(table, file, write_page_checksum=True))


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
        return pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
