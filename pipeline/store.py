"""The run directory: run.json, one Parquet file an entry, kept embeddings; each file appears whole or not at all."""

import errno
import hashlib
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..data_catalog.errors import DiskFull, InputError
from ..data_catalog.subset import Subset
from .record import RunRecord, parse_record
from .schema import COLUMNS

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
ALWAYS_THERE = (
    "model", "img_size", "status", "row_id", "embedding_id", "embedding_sha256", "own_measures", "finished_at",
)  # fmt: skip
NOT_THIS_RUN = "a row of other settings, weights or images than this run's"

_ARROW_TYPES = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("ms", tz="UTC"),
}


@dataclass(frozen=True)
class UnreadableRow:
    """A file among the results that is no row of this run, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under a temporary name, then rename it: readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    except OSError as error:
        raise disk_full(path) if error.errno in NO_SPACE else error from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise disk_full(path) from None
        raise


def disk_full(path: Path) -> DiskFull:
    """What to say when ``path`` cannot be written for lack of space."""
    return DiskFull(f"{path}: no space left; make room, and the same command goes on from here")


def sweep_temporary(folder: Path, older_than_s: float = 3600) -> None:
    """Remove what a killed process left half-written, unless it is young enough to be in use."""
    for path in folder.glob(".*.tmp"):
        if time.time() - path.stat().st_mtime > older_than_s:
            path.unlink(missing_ok=True)


def row_path(out: Path, slug: str) -> Path:
    """Where an entry's row stands."""
    return out / "results" / f"{slug}.parquet"


def timeout_log(out: Path, slug: str) -> Path:
    """Where an entry that took too long was when it was ended."""
    return out / "logs" / f"{slug}.timeout.txt"


def row_mark(out: Path, slug: str) -> tuple[int, int] | None:
    """Something that changes whenever an entry's row is written."""
    try:
        stat = row_path(out, slug).stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def read_row(out: Path, slug: str) -> dict[str, Any] | None:
    """An entry's row; None when there is none that can be read."""
    try:
        return _read_row(row_path(out, slug))
    except (ValueError, OSError, pa.ArrowException):
        return None


def embedding_path(out: Path, slug: str) -> Path:
    """Where an entry's embedding stands."""
    return out / "embeddings" / f"{slug}.npy"


def write_row(out: Path, slug: str, row: Mapping[str, Any]) -> None:
    """Store one row as ``OUT/results/<slug>.parquet``; columns beyond the schema are numbers."""
    types = {column.name: _ARROW_TYPES[column.kind] for column in COLUMNS}
    fields = [*types, *(name for name in row if name not in types)]
    schema = pa.schema([pa.field(name, types.get(name, pa.float64())) for name in fields])
    table = pa.Table.from_pylist([{name: row.get(name) for name in fields}], schema=schema)
    write_atomically(row_path(out, slug), lambda file: pq.write_table(table, file))


def scan_results(out: Path) -> tuple[dict[str, dict[str, Any]], list[UnreadableRow]]:
    """Every row of ``OUT/results`` by its slug, and the files that hold none."""
    rows, unreadable = {}, []
    for path in sorted((out / "results").glob("*")):
        if path.name.startswith("."):
            continue
        try:
            rows[path.stem] = _read_row(path)
        except (ValueError, OSError, pa.ArrowException) as error:
            unreadable.append(UnreadableRow(path, str(error).split("\n")[0]))
    return rows, unreadable


def _read_row(path: Path) -> dict[str, Any]:
    if path.suffix != ".parquet":
        raise ValueError("not a Parquet file")
    with path.open("rb") as file:
        table = pq.ParquetFile(file).read(use_threads=False)
    lacking = [name for name in ALWAYS_THERE if name not in table.column_names]
    if lacking or table.num_rows != 1:
        raise ValueError(f"no row of dsmi-zoo: {table.num_rows} rows, lacks {', '.join(lacking) or 'no column'}")
    known = [column for column in COLUMNS if column.name in table.column_names]
    wrong = [c.name for c in known if table.schema.field(c.name).type != _ARROW_TYPES[c.kind]]
    if wrong:
        raise ValueError(f"no row of dsmi-zoo: wrong type of {', '.join(wrong)}")
    # An older version's row lacks what was added since; its numbers, and its embedding, are as good as ever.
    return {column.name: None for column in COLUMNS} | table.to_pylist()[0]


def read_results(out: str | Path) -> pd.DataFrame:
    """All rows of a run.

    Returns
    -------
    pandas.DataFrame
        One row an entry, sorted by model and image size; the columns of ``dsmi_zoo.pipeline.schema`` first, then the
        catalogue's and the user's own. Files that are no rows of this run are left out with a warning.

    Raises
    ------
    InputError
        When the folder is no run.
    """
    out = Path(out)
    current = {entry.slug: entry.row_id for entry in read_run(out).entries}
    rows, unreadable = scan_results(out)
    foreign = [slug for slug, row in rows.items() if row["row_id"] != current.get(slug)]
    for problem in (*unreadable, *(UnreadableRow(row_path(out, slug), NOT_THIS_RUN) for slug in foreign)):
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return rows_frame([row for slug, row in rows.items() if slug not in foreign])


def rows_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame with the schema's columns and types."""
    names = [c.name for c in COLUMNS]
    extra = sorted({name for row in rows for name in row} - set(names))
    frame = pd.DataFrame(list(rows), columns=[*names, *extra])
    kinds = {"integer": "Int64", "number": "float64", "flag": "boolean", "text": "object"}
    frame = frame.astype({c.name: kinds[c.kind] for c in COLUMNS if c.kind in kinds} | dict.fromkeys(extra, "float64"))
    frame["finished_at"] = pd.to_datetime(frame["finished_at"], utc=True)
    return frame.sort_values(["model", "img_size"], ignore_index=True)


def write_run(out: Path, record: RunRecord) -> None:
    """Store ``OUT/run.json``."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_atomically(out / "run.json", lambda file: file.write(text.encode()))


def read_run(out: str | Path) -> RunRecord:
    """The content of ``OUT/run.json``.

    Raises
    ------
    InputError
        When the folder is no run, or its record is damaged or of a format that this version does not know.
    """
    path = Path(out) / "run.json"
    if not path.is_file() and (Path(out) / "stages").is_dir():
        raise InputError(f"{out} holds an unfinished search; the same `dsmi-zoo run --budget ...` goes on from there")
    if not path.is_file():
        raise InputError(f"{out} is no run: it has no run.json; start one with `dsmi-zoo run --out {out}`")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_record(content, path)


def write_embedding(out: Path, slug: str, embedding: np.ndarray) -> None:
    """Store ``OUT/embeddings/<slug>.npy``."""
    write_array(embedding_path(out, slug), embedding)


def write_array(path: Path, array: np.ndarray) -> None:
    """Store an array as .npy."""
    content = io.BytesIO()  # to a file itself, NumPy writes in C and loses the reason why it cannot
    np.lib.format.write_array(content, array, allow_pickle=False)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def read_embedding(path: Path, sha256: str) -> np.ndarray:
    """A kept embedding, checked against the hash in its row.

    Raises
    ------
    InputError
        When the file is missing, unreadable or other than its row says.
    """
    try:
        embedding = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: the kept embedding cannot be read ({error}); rerun this model") from None
    if array_sha256(embedding) != sha256:
        raise InputError(f"{path}: the kept embedding is not the one that its row was computed from; rerun this model")
    return embedding


def write_subset(out: Path, subset: pd.DataFrame) -> None:
    """Store ``OUT/subset.parquet``: one row an image, in the embeddings' order."""
    write_atomically(out / "subset.parquet", lambda file: subset.to_parquet(file, index=False))


def read_subset(out: Path) -> pd.DataFrame:
    """The subset's images with their ``label``, ``number`` in the data set and ``input_cluster``."""
    with (out / "subset.parquet").open("rb") as file:
        return pq.ParquetFile(file).read(use_threads=False).to_pandas()


def clusters_path(out: Path, img_size: int) -> Path:
    """Where the paper's protocol keeps the clusters of its inputs, which differ by image size."""
    return out / "input_clusters" / f"{img_size}.npy"


def subset_with_clusters(out: Path, img_size: int | None) -> pd.DataFrame:
    """The subset's rows; ``input_cluster`` is that of the entry's own crops where the protocol clusters those."""
    subset = read_subset(out)
    own = None if img_size is None else clusters_path(out, img_size)
    return subset if own is None or not own.exists() else subset.assign(input_cluster=np.load(own, allow_pickle=False))


def subset_is_stored(out: Path, subset: Subset) -> bool:
    """Whether ``OUT/subset.parquet`` can be read and holds this subset."""
    try:
        return read_subset(out)[["image", "label", "number", "repeat"]].equals(subset.table())
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return False


def array_sha256(array: np.ndarray) -> str:
    """Hash of an array's type, shape and values."""
    content = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()
