"""What ``OUT/run.json`` holds: the settings, the images and the entries of a run, and how a search for the best went.

Keys of the record that this version does not know are kept when it is written again: what a newer version of the same
format has noted must not be lost because an older one added a model. Those of entries, subset and catalogue are read
past, because these are noted anew. Only ``config`` takes none: a setting that this version cannot obey may change
numbers.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import dotted, rule_of
from dsmi_zoo._util.text import shortened, shown

from ..config.run import RunConfig

FORMAT: Literal[1] = 1
MEND = "the same command as before writes it anew from its rows, or choose another --out"
DAMAGED = f"the file is damaged or was changed by hand: {MEND}"
NEWER = "a newer version wrote the file: update dsmi-zoo, or choose another --out"

# What the identity of a run of the first version has already: settings, and those of two groups.
IDENTITY: dict[str, tuple[str, ...]] = {
    "catalog": (),
    "protocol": (),
    "precision": (),
    "subset": ("dataset", "images_per_class", "seed"),
    "measures": ("sigma", "t", "repetitions", "seed", "bins", "null_permutations", "own"),
}


class LostRecord(InputError):
    """A run.json that is missing or damaged; the run's rows still hold their identities.

    Parameters
    ----------
    problem
        What is wrong with which file.
    remedy
        What to do about it.
    """

    def __init__(self, problem: str, remedy: str = DAMAGED) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem


Moment = Annotated[
    AwareDatetime, PlainSerializer(lambda time: time.isoformat(timespec="seconds"), return_type=str)
]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(allow_inf_nan=False)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class _Record(BaseModel):
    """Strict: JSON has types of its own, and ``"447"`` is no number of images."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Frozen(_Record):
    model_config = ConfigDict(frozen=True)


class CatalogRecord(_Frozen):
    """The catalogue that a run chose from; the first versions noted no hash."""

    name: str
    sha256: str | None = None


class SubsetRecord(_Frozen):
    """The images that every entry of a run was measured on; ``n_samples`` counts each repeat of an image."""

    dataset: str
    hash: str
    n_samples: Count
    n_images: Count
    n_classes: Count
    seed: Annotated[int, Field(ge=0)]


class EntryRecord(_Frozen):
    """An entry of a run, the name of its files and the identity of its row."""

    model: str
    img_size: Count | None
    slug: FileName
    row_id: str

    def __str__(self) -> str:
        return f"{self.model}@{self.img_size}"


class Dropped(_Record):
    """A model that a stage of a search measured and the next one does not; percent, None for a failed one."""

    model: str
    reason: str
    accuracy: Number | None = None
    low: Number | None = None
    high: Number | None = None


class Passed(_Record):
    """What a stage of a search did."""

    images: Count
    models: Count
    seconds: Number
    dropped: list[Dropped] = []


class SearchNote(_Record):
    """How a search on a budget of time went; ``left_out`` are the models that the budget has no room for."""

    budget_s: Number
    left_out: list[str] = []
    stages: list[Passed] = []

    def stage(self, images: int) -> Passed:
        """The stage of so many images: an earlier search's, which goes on, or a new one."""
        passed_stage = next((passed for passed in self.stages if passed.images == images), None)
        if passed_stage is None:
            passed_stage = Passed(images=images, models=0, seconds=0.0)
            self.stages = sorted([*self.stages, passed_stage], key=lambda passed: passed.images)
        return passed_stage


def _whole_identity(identity: dict[str, Any]) -> dict[str, Any]:
    """Refuse what no version can have written: by what is missing, rows of other settings would pass for equal."""
    for name, settings in IDENTITY.items():
        if name not in identity:
            raise ValueError(f"{name} is missing")
        if settings and not isinstance(identity[name], dict):
            raise ValueError(f"{name} holds no settings")
        for setting in settings:
            if setting not in identity[name]:
                raise ValueError(f"{name}.{setting} is missing")
    return identity


class RunRecord(_Frozen):
    """The content of ``OUT/run.json``.

    ``identity`` holds the settings that change numbers, as `RunConfig.identity` gave them then; ``embeddings_from`` is
    the run whose embeddings a remeasured one was computed from.
    """

    format: Literal[1]
    config: RunConfig
    identity: Annotated[dict[str, Any], AfterValidator(_whole_identity)]
    catalog: CatalogRecord
    subset: SubsetRecord
    entries: tuple[EntryRecord, ...]
    versions: dict[str, str]
    git_commit: str | None = None
    created_at: Moment
    updated_at: Moment
    embeddings_from: Path | None = None
    search: SearchNote | None = None


def parse_record(content: bytes, path: Path) -> RunRecord:
    """The record that the file ``path`` holds.

    Raises
    ------
    LostRecord
        When it is no JSON or no record of a run; names the file, the key and what to do.
    InputError
        When a newer version wrote it.
    """
    try:
        record = RunRecord.model_validate_json(content)
        json.loads(content, object_pairs_hook=_without_doubles)
    except ValidationError as error:
        problem, is_newer = _problem(error)
        raise (
            InputError(f"{path}: {problem}; {NEWER}")
            if is_newer
            else LostRecord(f"{path}: {problem}")
        ) from None
    # Of Python's reader of JSON, which takes less than pydantic's.
    except (ValueError, RecursionError) as error:
        raise LostRecord(f"{path}: cannot be read: {shortened(str(error))}") from None
    for where, text in _texts(record.model_dump(mode="json")):
        if "\0" in text:  # no name of a file may hold it
            raise LostRecord(f"{path}: {dotted(where)}: holds a NUL character")
    return record


def _without_doubles(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} stands there twice")


def _problem(error: ValidationError) -> tuple[str, bool]:
    """The first thing that is wrong with a record, in one line, and whether a newer version may have written it."""
    first = error.errors(include_url=False)[0]
    key = dotted(first["loc"])
    if first["type"] == "json_invalid":
        return f"cannot be read: {first['msg']}", False
    if first["loc"] == ("format",) and first["type"] != "missing":
        return f"not a run record of format {FORMAT}", True
    if not first["loc"]:
        return "no run record", False
    if first["type"] == "extra_forbidden":
        return f"{key}: a setting that this version of dsmi-zoo does not know", True
    if first["type"] == "missing":
        return f"{key} is missing", False
    rule = shortened(rule_of(first), 200)
    return f"{key}: {rule}", False


def _texts(
    value: Any, where: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text in a tree of JSON and the way to it; the parser has bounded the depth."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(part, (*where, name))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _texts(part, (*where, number))
