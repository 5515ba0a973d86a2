"""A release: the rows of a run in a folder that can be published, with what is needed to check them.

``release.json`` describes it, ``rows.parquet`` holds every row, ``run.json`` and ``subset.parquet`` the settings and
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
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256, write_text
from dsmi_zoo._util.parquet import read_parquet, write_parquet
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.settings import rule_of
from dsmi_zoo._util.text import shortened

from .record import Moment, RunRecord, parse_record
from .run_folder import arrow_schema, checked_rows, read_run, read_stored_rows, rows_frame
from .schema import COLUMNS

FORMAT: Literal[1] = 1
RELEASE, ROWS, RECORD, SUMS = "release.json", "rows.parquet", "run.json", "SHA256SUMS"
EARLIER = "releases"  # the folder of earlier releases
NEXT, READY = (
    ".next",
    ".ready",
)  # the next release while it is made, and while it replaces the earlier one
SUM_LINE = re.compile(r"([0-9a-f]{64})  (\S(?:.*\S)?)")  # as the command sha256sum writes it
PRIVATE_SETTINGS = ("compute", "out")


class Release(BaseModel):
    """The content of ``release.json``.

    ``id`` is the date and the beginning of the content's hash; ``supersedes`` and ``superseded_by`` are the ids of the
    previous and the next release; ``page_versions`` are the libraries that made the page.
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
    """Return whether a folder holds a ``release.json``."""
    return is_file(folder / RELEASE)


def read_release(folder: Path) -> Release:
    """Read a folder's ``release.json``.

    Raises
    ------
    InputError
        When it is missing, damaged or of a newer format, or while another release replaces it.
    """
    path = folder / RELEASE
    if is_file(folder / READY / SUMS):
        raise InputError(
            f"{folder} is being published to, or that was interrupted; `dsmi-zoo verify {folder}` finishes it"
        )
    if not is_release(folder):
        raise InputError(
            f"{folder} is not a published folder: it has no {RELEASE}; `dsmi-zoo publish OUT DEST` makes one"
        )
    try:
        return Release.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        problem = f"{where}: {shortened(rule_of(first), 200)}"
        raise InputError(
            f"{path}: {problem}; download it again, or publish the run again"
        ) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: cannot be read ({shortened(str(error))}); download it again, or publish the run again"
    )


def write_release(folder: Path, release: Release) -> None:
    """Store ``release.json``."""
    text = json.dumps(release.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_text(folder / RELEASE, text)


def read_published(folder: Path) -> Published:
    """Read a release with its record and rows.

    Raises
    ------
    InputError
        When the folder is not a release, or a file of it cannot be read.
    """
    release = read_release(folder)
    path = folder / RECORD
    try:
        record = parse_record(path.read_bytes(), path)
    except OSError as error:
        raise _unreadable(path, error) from None
    return Published(folder, release, record, read_rows(folder / ROWS))


def refuse_release(folder: Path) -> None:
    """Raise InputError for a published folder, which already has its report."""
    if is_release(folder):
        page = folder / "index.html"
        raise InputError(f"{folder} is a published folder, which has its report: {page}")


def rows_and_record(folder: Path) -> tuple[pd.DataFrame, RunRecord]:
    """Read the rows and the record of a run's OUT or of a published folder."""
    if is_release(folder):
        published = read_published(folder)
        return published.rows, published.record
    record = read_run(folder)
    return read_stored_rows(folder, record), record


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Store all rows as one Parquet file whose columns state their unit and meaning."""
    rows = list(rows)
    about = {column.name: {"unit": column.unit, "meaning": column.meaning} for column in COLUMNS}
    schema = arrow_schema([name for row in rows for name in row])
    schema = pa.schema([field.with_metadata(about.get(field.name)) for field in schema])
    whole_rows = [dict.fromkeys(schema.names) | dict(row) for row in rows]
    write_parquet(path, pa.Table.from_pylist(whole_rows, schema=schema))


def read_rows(path: Path) -> pd.DataFrame:
    """Read the rows of a release into a table like that of `read_results`.

    Raises
    ------
    InputError
        When the file is missing, damaged, or does not hold rows.
    """
    try:
        return rows_frame(checked_rows(read_parquet(path)))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def public_record(record: RunRecord) -> str:
    """Return the run's record as JSON, without the folders of the machine that it ran on."""
    config = record.config
    catalog = _last_part(config.catalog)
    order = config.subset.class_order
    hidden = {"data_root": None, "class_order": None if order is None else _last_part(order)}
    subset = config.subset.model_copy(update=hidden)
    public = record.model_copy(
        update={
            "config": config.model_copy(update={"catalog": catalog, "subset": subset}),
            "catalog": record.catalog.model_copy(update={"name": _last_part(record.catalog.name)}),
            "earlier_catalogs": tuple(
                one.model_copy(update={"name": _last_part(one.name)})
                for one in record.earlier_catalogs
            ),
            "embeddings_from": None,
        }
    )
    content = public.model_dump(mode="json", include=set(RunRecord.model_fields))
    for name in PRIVATE_SETTINGS:
        del content["config"][name]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path)[-1] or path


def files_of(folder: Path) -> Iterator[str]:
    """Yield the names of a release's files, except hidden ones, such as ``.git``, and earlier releases."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not is_hidden and name.parts[0] != EARLIER:
            yield name.as_posix()


def write_sums(folder: Path) -> None:
    """Store ``SHA256SUMS``, as ``sha256sum --check`` reads it."""
    names = sorted(name for name in files_of(folder) if name != SUMS)
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in names]
    write_text(folder / SUMS, "".join(lines))


def read_sums(folder: Path) -> dict[str, str]:
    """Read the SHA-256 of each file, by name.

    Raises
    ------
    InputError
        When ``SHA256SUMS`` is missing, or a line of it is not the sum of a file in the folder.
    """
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    sums = {}
    for number, line in enumerate(lines, start=1):
        match = SUM_LINE.fullmatch(line)
        if match is None or not stays_inside(match[2]):
            problem = "is not the sum of a file in the folder"
            raise InputError(f"{path}: line {number} {problem}: {shortened(line)}")
        sums[match[2]] = match[1]
    return sums


def stays_inside(name: str) -> bool:
    """Return whether a file name with ``/`` between its parts cannot lead out of the folder."""
    path = PurePosixPath(name)
    is_relative = not path.is_absolute() and ".." not in path.parts
    return is_relative and "\\" not in name and "\0" not in name


def release_id(date: str, *contents: bytes) -> str:
    """Return a release's name: its date and the first digits of its content's hash."""
    digest = hashlib.sha256(b"\0".join(contents)).hexdigest()
    return f"{date}-{digest[:8]}"
