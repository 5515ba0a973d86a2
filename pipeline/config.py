"""Every setting of a run, resolved once: the command line over the file over the defaults."""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..data_catalog.entries import validation_line
from ..data_catalog.errors import InputError
from ..data_catalog.filters import Filters
from .measures.settings import MeasureSettings


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Settings = TypeVar("Settings", bound=BaseModel)


class SubsetSettings(_Settings):
    """Which images are embedded."""

    dataset: str = "digits"
    data_root: Path | None = None
    classes: str | None = None
    images_per_class: int | None = Field(default=None, ge=2)
    repeats: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    allow_train_images: bool = False
    skip_bad_images: bool = False


CLUSTERS = ("local", "cuda", "slurm")


class ComputeSettings(_Settings):
    """Where and how it runs; nothing here changes a number."""

    cluster: str = "local"
    profile: Path | None = None
    workers: int | None = Field(default=None, ge=1)
    worker_memory: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    model_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    share: str | None = None
    batch_size: int | None = Field(default=None, ge=1)
    keep_embeddings: bool = True
    budget_gb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    budget: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_download: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    cache: Path = Field(default_factory=lambda: default_cache())
    cache_gb: float = Field(default=50.0, ge=0, allow_inf_nan=False)

    @field_validator("cluster")
    @classmethod
    def _known_cluster(cls, value: str) -> str:
        if value not in CLUSTERS and not re.fullmatch(r"(tcp|tls)://\S+:\d+", value):
            raise ValueError(
                f"must be {', '.join(CLUSTERS)}, or a scheduler's address: tcp://host:port, tls://host:port"
            )
        return value

    @field_validator("profile")
    @classmethod
    def _found_from_anywhere(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("share")
    @classmethod
    def _one_of_several(cls, value: str | None) -> str | None:
        if value is not None:
            part, _, parts = value.partition("/")
            if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
                raise ValueError("must be such as 3/8: the third of eight shares")
        return value

    @field_validator("budget", "model_timeout", mode="before")
    @classmethod
    def _in_seconds(cls, value: Any) -> Any:
        return in_seconds(value)

    @field_validator("max_download", "worker_memory", mode="before")
    @classmethod
    def _in_bytes(cls, value: Any) -> Any:
        return _in_units(value, {"MB": 1e6, "GB": 1e9, "TB": 1e12}, "a size such as 500MB or 20GB")

    @model_validator(mode="after")
    def _one_kind_of_budget(self) -> Self:
        if self.budget is not None and self.budget_gb is not None:
            raise ValueError("budget needs the weights again for the next stage, budget_gb deletes them; give one")
        if self.share is not None and (self.budget is not None or self.budget_gb is not None):
            raise ValueError("share cannot be combined with a budget: the shares know nothing of each other")
        if self.share is not None and self.cluster != "local":
            raise ValueError("share runs on the machine at hand, without Dask; leave --cluster out")
        return self


def in_seconds(value: Any) -> Any:
    """A time such as ``1h30m`` as seconds; numbers pass as they are, and anything else raises ValueError."""
    return _in_units(value, {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}, "a time such as 90s, 45m or 1h30m")


def _in_units(value: Any, units: Mapping[str, float], example: str) -> Any:
    """``1h30m`` or ``20GB`` as a number of the smallest unit; numbers pass as they are."""
    if isinstance(value, bool):
        raise ValueError(f"must be {example}")
    if not isinstance(value, str):
        return value
    text = value.replace(" ", "")
    part = rf"(\d+(?:\.\d+)?)({'|'.join(sorted(units, key=len, reverse=True))})"
    if not re.fullmatch(f"(?:{part})+", text, re.IGNORECASE):
        raise ValueError(f"must be {example}")
    named = {unit.lower(): size for unit, size in units.items()}
    return sum(float(number) * named[unit.lower()] for number, unit in re.findall(part, text, re.IGNORECASE))


class RunConfig(_Settings):
    """A whole run."""

    catalog: str = "digits"
    models: tuple[str, ...] = ()
    filters: Filters = Filters()
    protocol: Literal["standard", "paper"] = "standard"
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    out: Path | None = None
    subset: SubsetSettings = SubsetSettings()
    measures: MeasureSettings = MeasureSettings()
    compute: ComputeSettings = Field(default_factory=ComputeSettings)

    @model_validator(mode="after")
    def _no_repeats_without_random_crops(self) -> Self:
        if self.protocol == "standard" and self.subset.repeats not in (None, 1):
            raise ValueError(
                "repeats: the standard protocol has one row an image, for repeats fake signal; use paper's"
            )
        return self

    @property
    def repeats(self) -> int:
        """Rows of an embedding for each image: as set, else the paper's 3 or the standard's 1."""
        return self.subset.repeats or (3 if self.protocol == "paper" else 1)

    @property
    def folder(self) -> Path:
        """OUT, absolute: as given, or ``runs/<catalog>``."""
        return (self.out or Path("runs") / Path(self.catalog).stem).absolute()

    def identity(self) -> dict[str, Any]:
        """The settings that change numbers: all rows of one OUT share them."""
        return {
            "catalog": self.catalog if not Path(self.catalog).is_file() else Path(self.catalog).name,
            "protocol": self.protocol,
            "precision": self.precision,
            "subset": self.subset.model_dump(mode="json", exclude={"data_root"}) | {"repeats": self.repeats},
            "measures": self.measures.model_dump(mode="json"),
        }


def default_cache() -> Path:
    """Where weights and views are kept between runs."""
    if "DSMI_ZOO_CACHE" in os.environ:
        return Path(os.environ["DSMI_ZOO_CACHE"]).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "dsmi-zoo"


def resolve_config(command_line: Mapping[str, Any], file: Path | None = None) -> RunConfig:
    """The settings of a run: ``command_line`` (nested, only what was given) over the TOML ``file`` over the defaults.

    Raises
    ------
    InputError
        For a file that is no TOML, an unknown name or a wrong value.
    """
    settings: dict[str, Any] = {}
    if file is not None:
        try:
            settings = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{file}: cannot be read as TOML: {error}") from None
        validated(RunConfig, settings, str(file))
    config = validated(RunConfig, _merged(settings, command_line), "settings")
    if Path(config.catalog).is_file():  # run.json must find it again from any folder
        config = config.model_copy(update={"catalog": str(Path(config.catalog).absolute())})
    if config.subset.data_root is not None:
        subset = config.subset.model_copy(update={"data_root": config.subset.data_root.expanduser().absolute()})
        config = config.model_copy(update={"subset": subset})
    return config


def validated(kind: type[Settings], settings: Mapping[str, Any], where: str) -> Settings:
    """``settings`` as a model; what is wrong with them becomes an InputError of one line that starts with ``where``."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{where}: {validation_line(error)}") from None


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for name, value in over.items():
        merged[name] = _merged(merged.get(name, {}), value) if isinstance(value, Mapping) else value
    return merged


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Each setting that differs, as ``name = stored value, not wanted value``."""
    for name in sorted({*stored, *wanted}):
        old, new = stored.get(name), wanted.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name} = {_shown(name, old)}, not {_shown(name, new)}"


def _shown(name: str, value: Any) -> str:
    return "sqrt(d)" if name == "sigma" and value is None else json.dumps(value)


def content_hash(*parts: Any) -> str:
    """16 hexadecimal digits that identify JSON-able values, whatever the order of keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
