"""The run directory: run.json, one Parquet file an entry, kept embeddings; each file appears whole or not at all."""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_atomically, write_json
from dsmi_zoo._util.hashing import array_sha256

from .record import MEND, LostRecord, RunRecord, parse_record
from .row_file import read_row_file, write_row_file
from .schema import COLUMNS

NOT_THIS_RUN = "a row of other settings, weights or images than this run's"


@dataclass(frozen=True)
class UnreadableRow:
    """A file among the results that is no row of this run, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def row_path(out: Path, slug: str) -> Path:
    """Where an entry's row stands."""
    return out / "results" / f"{slug}.parquet"


def timeout_log(out: Path, slug: str) -> Path:
    """The log that shows where an entry hung that was ended for taking too long."""
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
        return read_row_file(row_path(out, slug))
    except (ValueError, OSError, pa.ArrowException):
        return None


def embedding_path(out: Path, slug: str) -> Path:
    """Where an entry's embedding stands."""
    return out / "embeddings" / f"{slug}.npy"


def write_row(out: Path, slug: str, row: Mapping[str, Any]) -> None:
    """Store one row as ``OUT/results/<slug>.parquet``; columns beyond the schema are numbers."""
    write_row_file(row_path(out, slug), row)


def scan_results(out: Path) -> tuple[dict[str, dict[str, Any]], list[UnreadableRow]]:
    """Every row of ``OUT/results`` by its slug, and the files that hold none."""
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
    """All rows of a run.

    Returns
    -------
    pandas.DataFrame
        One row per entry, sorted by model and image size; the columns of ``dsmi_zoo.pipeline.store.schema`` first, then the
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
    unreadable += [UnreadableRow(row_path(out, slug), NOT_THIS_RUN) for slug in foreign]
    for problem in unreadable:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return rows_frame([row for slug, row in rows.items() if slug not in foreign])


def rows_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame with the schema's columns and types."""
    names = [c.name for c in COLUMNS]
    extra = sorted({name for row in rows for name in row} - set(names))
    frame = pd.DataFrame(list(rows), columns=[*names, *extra])
    dtype_of = {"integer": "Int64", "number": "float64", "flag": "boolean", "text": "object"}
    dtypes = {c.name: dtype_of[c.kind] for c in COLUMNS if c.kind in dtype_of}
    frame = frame.astype(dtypes | dict.fromkeys(extra, "float64"))
    frame["finished_at"] = pd.to_datetime(frame["finished_at"], utc=True)
    return frame.sort_values(["model", "img_size"], ignore_index=True)


def write_run(out: Path, record: RunRecord) -> None:
    """Store ``OUT/run.json``."""
    write_json(out / "run.json", record.model_dump(mode="json"))


def read_run(out: str | Path) -> RunRecord:
    """The content of ``OUT/run.json``.

    Raises
    ------
    LostRecord
        When the record is missing or damaged.
    InputError
        When it is of a format that this version does not know.
    """
    path = Path(out) / "run.json"
    if not path.is_file():
        raise _no_record(Path(out))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_record(content, path)


def _no_record(out: Path) -> LostRecord:
    if any((out / "results").glob("*.parquet")):
        return LostRecord(f"{out} has rows but no run.json to say what they are", MEND)
    if (out / "stages").is_dir():
        return LostRecord(
            f"{out} holds an unfinished search",
            "the same `dsmi-zoo run --budget ...` goes on from there",
        )
    return LostRecord(
        f"{out} is no run: it has no run.json", f"start one with `dsmi-zoo run --out {out}`"
    )


def write_embedding(out: Path, slug: str, embedding: np.ndarray) -> None:
    """Store ``OUT/embeddings/<slug>.npy``."""
    write_array(embedding_path(out, slug), embedding)


def write_array(path: Path, array: np.ndarray) -> None:
    """Store an array as .npy."""
    write_atomically(path, lambda file: file.write(array_bytes(array)))


def array_bytes(array: np.ndarray) -> memoryview:
    """An array in the format .npy; written to a file by NumPy itself, the reason of a failure would be lost."""
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=False)
    return content.getbuffer()


def read_embedding(path: Path, sha256: str) -> np.ndarray:
    """A kept embedding, checked against the hash in its row.

    Raises
    ------
    InputError
        When the file is missing, unreadable, or does not match the hash.
    """
    try:
        if not path.is_file():
            raise OSError("there is no such file")
        embedding = np.load(path, allow_pickle=False)
        if not isinstance(embedding, np.ndarray):
            raise ValueError("an archive of arrays")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: the kept embedding cannot be read ({error}); rerun this model"
        ) from None
    if array_sha256(embedding) != sha256:
        raise InputError(
            f"{path}: the kept embedding is not the one that its row was computed from; rerun this model"
        )
    return embedding
