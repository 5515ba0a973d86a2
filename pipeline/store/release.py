"""A release: the rows of a run in a folder that can be published, with what is needed to check them.

``release.json`` says what it is, ``rows.parquet`` holds every row, ``run.json`` and ``subset.parquet`` the settings and
the images' names, ``embeddings/`` the embeddings if they are published too, and ``SHA256SUMS`` the hash of each file.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256, write_atomically, write_text
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.settings import rule_of
from dsmi_zoo._util.text import shortened
from dsmi_zoo.data_catalog.models.entry import CURRENT_NAMES

from .record import Moment, RunRecord, parse_record
from .row_file import ALWAYS_THERE, arrow_schema
from .run_folder import read_results, read_run, rows_frame
from .schema import COLUMNS

FORMAT: Literal[1] = 1
RELEASE, ROWS, RECORD, SUMS, EARLIER = (
    "release.json",
    "rows.parquet",
    "run.json",
    "SHA256SUMS",
    "releases",
)
# As the command sha256sum writes them: two blanks before the name.
SUM_LINE = re.compile(r"([0-9a-f]{64})  (\S(?:.*\S)?)")
PRIVATE_SETTINGS = ("compute", "out")


class Release(BaseModel):
    """The content of ``release.json``.

    ``id`` is the date and the beginning of the content's hash; ``supersedes`` and ``superseded_by`` are those of its
    neighbours; ``page_versions`` are the libraries that made the page.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    format: Literal[1]
    id: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}-[0-9a-f]{8}$")]
    title: str
    published_at: Moment
    license: str | None = None
    has_embeddings: bool
    measures_version: int | None = None
    git_commit: str | None = None
    page_versions: dict[str, str] = {}
    supersedes: str | None = None
    superseded_by: str | None = None


@dataclass(frozen=True)
class Published:
    """A release as its folder holds it."""

    folder: Path
    release: Release
    record: RunRecord
    rows: pd.DataFrame


def is_release(folder: Path) -> bool:
    """Whether a folder says that it is a release."""
    return is_file(folder / RELEASE)


def read_release(folder: Path) -> Release:
    """The content of a folder's ``release.json``.

    Raises
    ------
    InputError
        When it is missing, damaged or of a newer format.
    """
    path = folder / RELEASE
    if not is_release(folder):
        raise InputError(
            f"{folder} is no published folder: it has no {RELEASE}; `dsmi-zoo publish OUT DEST` makes one"
        )
    try:
        return Release.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path}: {where}: {shortened(rule_of(first), 200)}; publish the run again"
        ) from None


def write_release(folder: Path, release: Release) -> None:
    """Store ``release.json``."""
    text = json.dumps(release.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_text(folder / RELEASE, text)


def read_published(folder: Path) -> Published:
    """A release with its record and rows.

    Raises
    ------
    InputError
        When the folder is no release, or a file of it cannot be read.
    """
    release = read_release(folder)
    path = folder / RECORD
    try:
        record = parse_record(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return Published(folder, release, record, read_rows(folder / ROWS))


def rows_and_record(folder: Path) -> tuple[pd.DataFrame, RunRecord]:
    """The rows and the record of a run's OUT or of a published folder."""
    if is_release(folder):
        published = read_published(folder)
        return published.rows, published.record
    return read_results(folder), read_run(folder)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Store all rows as one Parquet file whose columns say their unit and meaning."""
    rows = list(rows)
    schema = arrow_schema([name for row in rows for name in row])
    schema = pa.schema([_described(field) for field in schema])
    whole_rows = [dict.fromkeys(schema.names) | dict(row) for row in rows]
    table = pa.Table.from_pylist(whole_rows, schema=schema)
    write_atomically(path, lambda file: pq.write_table(table, file, write_page_checksum=True))


def _described(field: pa.Field) -> pa.Field:
    column = next((column for column in COLUMNS if column.name == field.name), None)
    return (
        field
        if column is None
        else field.with_metadata({"unit": column.unit, "meaning": column.meaning})
    )


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a release, as `read_results` gives those of a run.

    Raises
    ------
    InputError
        When there is no such file, or it holds no rows.
    """
    try:
        if not is_file(path):
            raise OSError("there is no such file")
        with path.open("rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
        table = table.rename_columns([CURRENT_NAMES.get(name, name) for name in table.column_names])
        lacking = [name for name in ALWAYS_THERE if name not in table.column_names]
        if lacking:
            raise ValueError(f"lacks {', '.join(lacking)}")
        expected = arrow_schema(table.column_names)
        for field in table.schema:
            if field.type != expected.field(field.name).type:
                raise ValueError(f"wrong type of {field.name}")
        return rows_frame(table.to_pylist())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read ({shortened(str(error))}); publish the run again"
        ) from None


def public_record(record: RunRecord) -> str:
    """The run's record for others: without the folders of the machine that it ran on."""
    config = record.config
    catalog = _last_part(config.catalog)
    subset = config.subset.model_copy(update={"data_root": None})
    public = record.model_copy(
        update={
            "config": config.model_copy(update={"catalog": catalog, "subset": subset}),
            "catalog": record.catalog.model_copy(update={"name": _last_part(record.catalog.name)}),
            "embeddings_from": None,
        }
    )
    content = public.model_dump(mode="json", include=set(RunRecord.model_fields))
    for name in PRIVATE_SETTINGS:
        del content["config"][name]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path)[-1] or path


def sums_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a release by its name in the folder; earlier releases have sums of their own."""
    return {name: file_sha256(folder / name) for name in sorted(files_of(folder)) if name != SUMS}


def files_of(folder: Path) -> Iterator[str]:
    """The files of a release, relative to its folder; hidden ones, such as ``.git``, are somebody else's."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not is_hidden and name.parts[0] != EARLIER:
            yield name.as_posix()


def write_sums(folder: Path) -> None:
    """Store ``SHA256SUMS``, as ``sha256sum --check`` reads it."""
    text = "".join(f"{digest}  {name}\n" for name, digest in sums_of(folder).items())
    write_text(folder / SUMS, text)


def read_sums(folder: Path) -> dict[str, str]:
    """The noted SHA-256 of each file by its name.

    Raises
    ------
    InputError
        When the file is missing, or a line of it is no sum of a file in the folder.
    """
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({shortened(str(error))}); publish the run again"
        ) from None
    sums = {}
    for number, line in enumerate(lines, start=1):
        match = SUM_LINE.fullmatch(line)
        if match is None or not stays_inside(match[2]):
            raise InputError(
                f"{path}: line {number} is no sum of a file in the folder: {shortened(line)}"
            )
        sums[match[2]] = match[1]
    return sums


def stays_inside(name: str) -> bool:
    """Whether the name of a file, with ``/`` between its parts, cannot lead out of the folder."""
    path = PurePosixPath(name)
    return (
        not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name
    )


def release_id(date: str, *contents: bytes) -> str:
    """The name of a release: its date and what it holds."""
    digest = hashlib.sha256(b"\0".join(contents)).hexdigest()
    return f"{date}-{digest[:8]}"
