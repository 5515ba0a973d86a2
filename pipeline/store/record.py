"""The content of ``OUT/run.json``: settings, images and entries of a run, and the history of a search for the best.

Unknown keys of the record are kept when it is rewritten, so that an older version that adds a model loses nothing that
a newer one has stored. Only ``config`` allows no unknown keys, because a setting that this version does not know may
change numbers.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import dotted, rule_of
from dsmi_zoo._util.text import shortened
from dsmi_zoo.data_catalog.datasets.base import Account

from ..config.run import Metric, RunConfig

FORMAT: Literal[1] = 1
REPAIR_HINT = "the same command as before rewrites it from its rows, or choose another --out"
DAMAGED = f"the file is damaged or was changed by hand: {REPAIR_HINT}"
NEWER = "a newer version wrote the file: update dsmi-zoo, or choose another --out"

# The settings in the identity of a run of the first version; two of them are groups.
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
        The file, and what is wrong with it.
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
    """A strict model: JSON has types, and ``"447"`` is not a number of images."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Frozen(_Record):
    model_config = ConfigDict(frozen=True)


class CatalogRecord(_Frozen):
    """The catalogue of a run; the first versions stored no hash."""

    name: str
    sha256: str | None = None


class SubsetRecord(_Frozen):
    """The images of a run; ``n_samples`` counts each repeat of an image.

    ``account`` says what else the data set holds, ``classes`` names the classes in the order of their labels, and
    ``n_largest_class`` is the number of images of the largest class; earlier versions stored none of these three.
    """

    dataset: str
    hash: str
    n_samples: Count
    n_images: Count
    n_classes: Count
    seed: Annotated[int, Field(ge=0)]
    account: Account | None = None
    classes: tuple[str, ...] | None = None
    n_largest_class: Count | None = None


class EntryRecord(_Frozen):
    """An entry of a run, the name of its files and the identity of its row."""

    model: str
    img_size: Count | None
    slug: FileName
    row_id: str

    def __str__(self) -> str:
        return f"{self.model}@{self.img_size}"


NO_TIME = "no time left"
"""Reason for dropping a model that may be the best from a search."""


class Dropped(_Record):
    """A model that leaves a search after a stage, and its accuracy in percent, None if it failed."""

    model: str
    reason: str
    accuracy: Number | None = None
    low: Number | None = None
    high: Number | None = None


class SearchStage(_Record):
    """A finished stage of a search.

    ``contenders`` is the number of models that it did not find clearly worse, and ``contenders_alone`` that number if
    the stage had its own error rate instead of a share of the search's; earlier versions stored neither.
    """

    images: Count
    models: Count
    seconds: Number
    contenders: Count | None = None
    contenders_alone: Count | None = None
    dropped: list[Dropped] = []


class SearchHistory(_Record):
    """The history of a search within a time budget; ``left_out`` are the models that did not fit in it.

    ``error_rate`` is the bound on the chance that a model as good as the best is dropped, in percent, over all stages,
    and ``metric`` the accuracy that ranks models. Searches of earlier versions have neither: their stages took the same
    number of images of each class, and each had a test at 5%.
    """

    budget_s: Number
    metric: Metric | None = None
    error_rate: Number | None = None
    left_out: list[str] = []
    stages: list[SearchStage] = []

    def stage(self, images: int) -> SearchStage:
        """Return the stage with this number of images, an earlier search's or a new one."""
        for stage in self.stages:
            if stage.images == images:
                return stage
        added = SearchStage(images=images, models=0, seconds=0.0)
        self.stages = sorted([*self.stages, added], key=lambda stage: stage.images)
        return added


def _whole_identity(identity: dict[str, Any]) -> dict[str, Any]:
    """Raise ValueError for an incomplete identity, which rows of other settings would seem to match."""
    for name, settings in IDENTITY.items():
        if name not in identity:
            raise ValueError(f"{name} is missing")
        if settings and not isinstance(identity[name], dict):
            raise ValueError(f"{name} is not a table of settings")
        for setting in settings:
            if setting not in identity[name]:
                raise ValueError(f"{name}.{setting} is missing")
    return identity


def _with_all_scores(config: Any) -> Any:
    """Complete the settings of a run of earlier versions, which computed all scores."""
    if not isinstance(config, dict) or not isinstance(measures := config.get("measures"), dict):
        return config
    return config | {"measures": {"scores": "all"} | measures}


class RunRecord(_Frozen):
    """The content of ``OUT/run.json``.

    ``identity`` holds the settings that change numbers, as `RunConfig.identity` gave them at the time. For a remeasured
    run, ``embeddings_from`` is the run whose embeddings it was computed from. ``catalog`` is the latest catalogue;
    entries may also come from ``earlier_catalogs``.
    """

    format: Literal[1]
    config: Annotated[RunConfig, BeforeValidator(_with_all_scores)]
    identity: Annotated[dict[str, Any], AfterValidator(_whole_identity)]
    catalog: CatalogRecord
    subset: SubsetRecord
    entries: tuple[EntryRecord, ...]
    versions: dict[str, str]
    git_commit: str | None = None
    created_at: Moment
    updated_at: Moment
    embeddings_from: Path | None = None
    earlier_catalogs: tuple[CatalogRecord, ...] = ()
    search: SearchHistory | None = None


def catalogs_in_words(record: RunRecord) -> str:
    """Return the names of all catalogues of a run, the latest last."""
    return " and ".join(one.name for one in (*record.earlier_catalogs, record.catalog))


def parse_record(content: bytes, path: Path) -> RunRecord:
    """Parse the content of the file ``path``.

    Raises
    ------
    LostRecord
        When it is not JSON or not the record of a run; names the file, the key and what to do.
    InputError
        When a newer version wrote it.
    """
    try:
        record = RunRecord.model_validate_json(content)
        json.loads(content)  # Python refuses more than pydantic, such as numbers of 5,000 digits
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = dotted(first["loc"])
        if first["loc"] == ("format",) and first["type"] != "missing":
            problem = f"{path}: not a run record of format {FORMAT}; {NEWER}"
            raise InputError(problem) from None
        if first["type"] == "extra_forbidden":
            problem = f"{path}: {key}: a setting that this version of dsmi-zoo does not know"
            raise InputError(f"{problem}; {NEWER}") from None
        if first["type"] == "json_invalid":
            problem = f"cannot be read: {first['msg']}"
        elif not first["loc"]:
            problem = "not a run record"
        elif first["type"] == "missing":
            problem = f"{key} is missing"
        else:
            problem = f"{key}: {shortened(rule_of(first), 200)}"
        raise LostRecord(f"{path}: {problem}") from None
    except (ValueError, RecursionError) as error:
        raise LostRecord(f"{path}: cannot be read: {shortened(str(error))}") from None
    for where, text in _texts(record.model_dump(mode="json")):
        if "\0" in text:  # not allowed in the name of a file
            raise LostRecord(f"{path}: {dotted(where)}: holds a NUL character")
    return record


def _texts(
    value: Any, where: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield every string in a JSON tree, with the keys that lead to it."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(part, (*where, name))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _texts(part, (*where, number))
