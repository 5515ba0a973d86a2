"""A site's profile for `--cluster`: what a job requests from Slurm, which network is shared, where credentials are."""

import re
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.tables import read_toml
from dsmi_zoo._util.text import is_printable
from dsmi_zoo.pipeline.config.run import validated

from .machine import MAX_PER_GPU

EXAMPLES = Path(__file__).parents[1] / "profiles"
WALLTIME = re.compile(r"([0-9]{1,3}-)?[0-9]{1,6}(:[0-9]{1,2}){0,2}")
MAX_COUNT = 10_000  # cores, GPUs, workers
MAX_MEMORY = 2**50  # bytes: a pebibyte


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("walltime", check_fields=False)
    @classmethod
    def _as_slurm_writes_it(cls, value: str) -> str:
        if not WALLTIME.fullmatch(value):
            raise ValueError(
                "must be as Slurm writes it: minutes, hours:minutes:seconds or days-hours:minutes:seconds"
            )
        return value

    @field_validator("memory", check_fields=False)
    @classmethod
    def _a_size(cls, value: str) -> str:
        from dask.utils import parse_bytes

        is_size = re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})? ?[KMGT]i?B", value)
        if not is_size or not 2**20 <= parse_bytes(value) <= MAX_MEMORY:
            raise ValueError('must be a size such as "16GB", from a mebibyte to a pebibyte')
        return value

    @field_validator("*")
    @classmethod
    def _one_line(cls, value: object) -> object:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str | Path) and not is_printable(str(text).replace("\t", " ")):
                raise ValueError("must be one line, without control characters")
        return value

    @field_validator("partition", "account", "gres", "interface", check_fields=False)
    @classmethod
    def _a_word(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[^\s\"'\\#]+", value):
            raise ValueError("must be a word without blanks, quotes, backslashes and #")
        return value


class DriverJob(_Section):
    """The resources that ``dsmi-zoo submit slurm`` requests for the driver, which computes nothing itself."""

    partition: str | None = None
    cpus: int = Field(default=1, ge=1, le=MAX_COUNT)
    memory: str = "4GB"
    walltime: str = "1-00:00:00"
    directives: tuple[str, ...] = ()


class Credentials(_Section):
    """PEM files for a scheduler at ``tls://`` that is already running."""

    ca_file: Path
    cert: Path
    key: Path


class Profile(_Section):
    """The resources that one job of workers requests, and the settings of the site.

    ``workers`` is the number of such jobs, each with `processes` worker processes: ``per_gpu`` on each of its ``gpus``.
    ``interface`` is the network interface by which the nodes reach each other, by default the one that leads from the
    driver to them; ``prologue`` are shell lines that run before a worker or driver starts (modules, proxies);
    ``directives`` are further sbatch options; ``scratch`` is the folder for Dask's temporary files; ``python`` is the
    interpreter of the jobs, by default the current one. ``driver`` holds the resources of the job that ``submit slurm``
    makes, ``tls`` the credentials for a scheduler that is already running.
    """

    partition: str | None = None
    account: str | None = None
    gpus: int = Field(default=1, ge=0, le=MAX_COUNT)
    gres: str | None = None
    per_gpu: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    cpus: int = Field(default=4, ge=1, le=MAX_COUNT)
    memory: str = "16GB"
    walltime: str = "04:00:00"
    workers: int = Field(default=4, ge=1, le=MAX_COUNT)
    interface: str | None = None
    prologue: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    scratch: Path | None = None
    python: str | None = None
    driver: DriverJob = DriverJob()
    tls: Credentials | None = None

    def requests(self) -> list[str]:
        """Return the sbatch options that dask-jobqueue has no argument for: generic resources and directives."""
        gres = self.gres or (f"gpu:{self.gpus}" if self.gpus else None)
        return [*([f"--gres={gres}"] if gres else []), *self.directives]

    def processes(self, per_gpu: int | None = None) -> int:
        """Return a job's worker processes: ``per_gpu``, by default the profile's, for each GPU; 1 without GPUs."""
        if not self.gpus:
            return 1
        cpus_of_a_gpu = max(1, self.cpus // self.gpus)
        return self.gpus * (per_gpu or self.per_gpu or min(cpus_of_a_gpu, MAX_PER_GPU))

    @model_validator(mode="after")
    def _gres_and_gpus_agree(self) -> Self:
        named = re.fullmatch(
            r"gpu(:[^:,()]*[^:,()0-9][^:,()]*)?(:(?P<count>[0-9]{1,6}))?", self.gres or ""
        )
        if named is not None and int(named["count"] or 1) != self.gpus:
            raise ValueError(
                f"gres = {self.gres!r} asks for {named['count'] or 1} GPUs, and gpus says {self.gpus}"
            )
        return self


def walltime_seconds(walltime: str) -> int:
    """Return the seconds of a walltime in Slurm's form: ``90`` (minutes), ``1:30:00``, ``1-12``; 0 means no limit."""
    days, is_with_days, rest = walltime.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if is_with_days:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def load_profile(path: Path | None) -> Profile:
    """Read a profile, a TOML file; None gives the defaults.

    Raises
    ------
    InputError
        For a missing file, invalid TOML, an unknown name or an invalid value.
    """
    if path is None:
        return Profile()
    known = ", ".join(sorted(example.stem for example in EXAMPLES.glob("*.toml")))
    if not is_file(path):
        raise InputError(
            f"{path}: no such profile; write one after the examples in {EXAMPLES} ({known})"
        )
    return validated(Profile, read_toml(path), str(path))
