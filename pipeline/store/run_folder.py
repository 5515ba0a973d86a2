"""The run directory: run.json and a Parquet file per entry, each written atomically."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import (
    write_json,
)
from dsmi_zoo._util.parquet import read_parquet, write_parquet
from dsmi_zoo.data_catalog.models.entry import CURRENT_NAMES

from .embedding_file import embedding_path
from .record import REPAIR_HINT, LostRecord, RunRecord, parse_record
from .schema import COLUMNS, Column, in_display_order

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


def write_row_file(path: Path, row: Mapping[str, Any], columns: Sequence[Column] = COLUMNS) -> None:
    """Store one row with these ``columns``; any further columns are numbers."""
    schema = arrow_schema(row, columns)
    values = [_of_one(row.get(field.name), field.type) for field in schema]
    table = pa.Table.from_arrays(values, schema=schema)
    write_parquet(path, table.replace_schema_metadata({DIGEST: _digest(table)}))


def _of_one(value: Any, kind: pa.DataType) -> pa.Array:
    """Return a column of one row; most are empty in a failed row, and ``pa.array`` would ask pandas about each."""
    return pa.nulls(1, kind) if value is None else pa.array([value], kind)


def arrow_schema(names: Iterable[str], columns: Sequence[Column] = COLUMNS) -> pa.Schema:
    """Return the columns of rows, those of the schema first; further ``names`` are numbers."""
    fields = [pa.field(column.name, _ARROW_TYPES[column.kind]) for column in columns]
    further = sorted(set(names) - {field.name for field in fields})
    return pa.schema([*fields, *(pa.field(name, pa.float64()) for name in further)])


def read_row_file(
    path: Path, columns: Sequence[Column] = COLUMNS, always: Sequence[str] = ALWAYS_THERE
) -> dict[str, Any]:
    """Read the row of a file, with null in the columns that its version did not have.

    Parameters
    ----------
    columns, always
        The columns of this kind of row, and the names of those that every such row has.

    Raises
    ------
    ValueError, OSError, pyarrow.ArrowException
        When the file is not a row, or is damaged.
    """
    if path.suffix != ".parquet":
        raise ValueError("not a Parquet file")
    table = read_parquet(path)
    rows = checked_rows(table, columns, always)
    if len(rows) != 1:
        raise ValueError(f"not a row of dsmi-zoo: {len(rows)} rows")
    metadata = table.schema.metadata or {}  # rows of the first versions have none
    if metadata and metadata.get(DIGEST) != _digest(table):
        raise ValueError("damaged: its values are not those that were written")
    # An older version's row lacks newer columns; its numbers and its embedding are still valid.
    return {column.name: None for column in columns} | rows[0]


def checked_rows(
    table: pa.Table, columns: Sequence[Column] = COLUMNS, always: Sequence[str] = ALWAYS_THERE
) -> list[dict[str, Any]]:
    """Return a table's rows under the current names of their columns.

    Raises
    ------
    ValueError
        When the table is missing a column that every row has, or a column has the wrong type.
    """
    table = table.rename_columns([CURRENT_NAMES.get(name, name) for name in table.column_names])
    lacking = [name for name in always if name not in table.column_names]
    if lacking:
        raise ValueError(f"not a row of dsmi-zoo: lacks {', '.join(lacking)}")
    expected = arrow_schema(table.column_names, columns)
    wrong = [field.name for field in table.schema if field.type != expected.field(field.name).type]
    if wrong:
        raise ValueError(f"not a row of dsmi-zoo: wrong type of {', '.join(wrong)}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _digest(table: pa.Table) -> bytes:
    """Return the hash of a row's names and values, without the columns that its version did not have."""
    text = json.dumps(table.to_pylist()[0], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest().encode()


NOT_THIS_RUN = "a row of other settings, weights or images than this run's"


@dataclass(frozen=True)
class UnreadableRow:
    """A file among the results that is not a row of this run, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def row_path(out: Path, slug: str) -> Path:
    """Return the path of an entry's row."""
    return out / "results" / f"{slug}.parquet"


def timeout_log(out: Path, slug: str) -> Path:
    """Return the path of the log that shows where an entry was when it exceeded its time limit."""
    return out / "logs" / f"{slug}.timeout.txt"


def row_mark(out: Path, slug: str) -> tuple[int, int] | None:
    """Return a value that changes whenever an entry's row is written."""
    return mark_of(row_path(out, slug))


def mark_of(path: Path) -> tuple[int, int] | None:
    """Return a value that changes whenever a file is written; None without one."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def read_row(out: Path, slug: str) -> dict[str, Any] | None:
    """Read an entry's row; None if it is missing or unreadable."""
    try:
        return read_row_file(row_path(out, slug))
    except (ValueError, OSError, pa.ArrowException):
        return None


def write_row(out: Path, slug: str, row: Mapping[str, Any]) -> None:
    """Store one row as ``OUT/results/<slug>.parquet``; columns beyond the schema are numbers."""
    write_row_file(row_path(out, slug), row)


def scan_results(out: Path) -> tuple[dict[str, dict[str, Any]], list[UnreadableRow]]:
    """Read every row of ``OUT/results``, by slug, and list the files that are not rows."""
    rows, unreadable = {}, []
    for path in sorted((out / "results").glob("*")):
        if path.name.startswith("."):  # an unfinished file of `write_atomically`
            continue
        try:
            rows[path.stem] = read_row_file(path)
        except (ValueError, OSError, pa.ArrowException) as error:
            unreadable.append(UnreadableRow(path, str(error).split("\n")[0]))
    return rows, unreadable


def read_results(out: str | Path) -> pd.DataFrame:
    """Read all rows of a run.

    Returns
    -------
    pandas.DataFrame
        One row per entry, sorted by model and image size; the model first, then accuracies and scores, then the other
        columns of ``dsmi_zoo.pipeline.store.schema``, the catalogue's and the user's own, and ``embedding_file``: the
        path of the kept embedding, relative to ``out`` (absolute for that of another run), or None. Files that are not
        rows of this run are left out with a warning.

    Raises
    ------
    InputError
        When the folder is not a run.
    """
    out = Path(out)
    record = read_run(out)
    rows = read_stored_rows(out, record)
    slugs = {entry.row_id: entry.slug for entry in record.entries}
    is_ok = rows["status"].eq("ok").fillna(False)
    files: list[str | None] = []
    for row_id, ok in zip(rows["row_id"], is_ok, strict=True):
        path = embedding_path(record.embeddings_from or out, slugs[row_id])
        is_kept = ok and path.is_file()
        files.append(
            str(path if record.embeddings_from else path.relative_to(out)) if is_kept else None
        )
    column = pd.Series(files, index=rows.index, dtype=object, name="embedding_file")
    return in_display_order(pd.concat([rows, column], axis=1))


def read_stored_rows(out: Path, record: RunRecord) -> pd.DataFrame:
    """Return the rows of `read_results` as stored, without its order of columns and its ``embedding_file``."""
    current = {entry.slug: entry.row_id for entry in record.entries}
    rows, unreadable = scan_results(out)
    foreign = [slug for slug, row in rows.items() if row["row_id"] != current.get(slug)]
    unreadable += [UnreadableRow(row_path(out, slug), NOT_THIS_RUN) for slug in foreign]
    for problem in unreadable:
        warnings.warn(f"left out: {problem}", stacklevel=3)
    return rows_frame([row for slug, row in rows.items() if slug not in foreign])


def rows_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a data frame with the schema's columns and types."""
    names = [c.name for c in COLUMNS]
    extra = sorted({name for row in rows for name in row} - set(names))
    frame = pd.DataFrame(list(rows), columns=[*names, *extra])
    dtype_of = {"integer": "Int64", "number": "float64", "flag": "boolean", "text": "object"}
    dtypes = {c.name: dtype_of[c.kind] for c in COLUMNS if c.kind in dtype_of}
    frame = frame.astype(dtypes | dict.fromkeys(extra, "float64"))
    frame["finished_at"] = pd.to_datetime(frame["finished_at"], utc=True)
    frame = frame.sort_values(["model", "img_size"], ignore_index=True)
    return frame.copy()  # in few blocks; with a hundred, pandas warns when a column is added


def write_run(out: Path, record: RunRecord) -> None:
    """Store ``OUT/run.json``."""
    write_json(out / "run.json", record.model_dump(mode="json"))


def read_run(out: str | Path) -> RunRecord:
    """Read ``OUT/run.json``.

    Raises
    ------
    LostRecord
        When the record is missing or damaged.
    InputError
        When it is of a format that this version does not know.
    """
    out = Path(out)
    path = out / "run.json"
    if not path.is_file():
        if any((out / "results").glob("*.parquet")):
            raise LostRecord(f"{out} has rows but no run.json to say what they are", REPAIR_HINT)
        if (out / "stages").is_dir():
            problem = f"{out} holds an unfinished search"
            raise LostRecord(problem, "the same `dsmi-zoo run --budget ...` goes on from there")
        problem = f"{out} is not a run: it has no run.json"
        raise LostRecord(problem, f"start one with `dsmi-zoo run --out {out}`")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_record(content, path)


def input_files(folder: Path) -> list[Path]:
    """Return a run's files about its images, relative to its folder; checksums come before their files."""
    clusters = sorted((folder / "input_clusters").glob("*.npy*"), reverse=True)
    paths = [folder / "subset.parquet", *clusters]
    return [path.relative_to(folder) for path in paths if path.exists()]
