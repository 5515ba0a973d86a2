"""What a run has to do, known before anything is built, downloaded or trained: its entries and their identities."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from data_catalog.datasets import open_dataset
from data_catalog.errors import InputError
from data_catalog.models import ModelEntry, Preprocessing, load_models
from data_catalog.subset import Subset, select_subset
from pipeline.config import MeasureSettings, RunConfig, content_hash
from pipeline.measures.registry import load_measure
from pipeline.schema import COLUMN_NAMES
from pipeline.store import write_atomically
from pipeline.views import view_path

TRAINING_VERSION = 1  # raised whenever pipeline/train.py comes to other weights for the same recipe


@dataclass(frozen=True)
class Job:
    """One entry of a run, with all that a worker needs.

    ``weights`` is the file that holds (or, for a model to be trained, will hold) them; None means those that
    ``entry.weights`` names.
    """

    entry: ModelEntry
    preprocessing: Preprocessing
    weights: Path | None
    view: Path
    embedding_id: str
    row_id: str

    @property
    def slug(self) -> str:
        """The entry's file name."""
        return self.entry.slug

    @property
    def name(self) -> str:
        """The entry's name for people."""
        return str(self.entry)

    @property
    def cost(self) -> float:
        """Relative time, so that the longest can start first."""
        recipe = self.entry.recipe
        return recipe.train_images * recipe.epochs if recipe else 0.0


@dataclass(frozen=True)
class Plan:
    """All entries of a run on one subset of images."""

    config: RunConfig
    subset: Subset
    jobs: tuple[Job, ...]


def make_plan(config: RunConfig) -> Plan:
    """Resolve catalogue, subset and identities.

    Raises
    ------
    InputError
        For anything that the user got wrong in them.
    """
    measure_id = measures_identity(config.measures)
    entries = load_models(config.catalog, config.models)
    taken = sorted({name for entry in entries for name in entry.extras} & COLUMN_NAMES)
    if taken:
        raise InputError(f"{config.catalog}: the column {taken[0]!r} is one that the run fills; rename it")
    subset = open_subset(config)
    cache = config.compute.cache
    jobs: dict[str, Job] = {}
    for entry, timm_weights in _resolved(entries):
        assert entry.preprocessing is not None
        assert entry.img_size is not None
        if entry.slug in jobs:
            raise InputError(f"{config.catalog}: {entry} stands there twice; the pair (model, img_size) must be unique")
        weights, weights_id = _weights(entry, timm_weights, cache)
        embedding_id = content_hash(
            weights_id,
            entry.architecture,
            entry.model_kwargs,
            subset.digest,
            entry.img_size,
            entry.preprocessing.model_dump(),
            config.protocol,
            config.precision,
        )
        jobs[entry.slug] = Job(
            entry=entry,
            preprocessing=entry.preprocessing,
            weights=weights,
            view=view_path(cache, subset.digest, entry.img_size, entry.preprocessing),
            embedding_id=embedding_id,
            row_id=content_hash(embedding_id, measure_id),
        )
    return Plan(config, subset, tuple(jobs.values()))


def resolve_entries(entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    """The entries with what the catalogue leaves open filled in from timm, their weights among it."""
    return [entry for entry, _ in _resolved(entries)]


def open_subset(config: RunConfig, part: str = "validation") -> Subset:
    """The images of one part of the run's data set; only the validation part is thinned out by the settings."""
    images = open_dataset(config.subset.dataset, part)
    if part == "validation":
        return select_subset(images, config.subset.images_per_class, config.subset.seed)
    return select_subset(images)


def measures_identity(settings: MeasureSettings) -> dict[str, Any]:
    """What of the measure settings a row's identity holds: own measures enter by their source."""
    taken = set(COLUMN_NAMES)
    own = []
    for spec in settings.own:
        try:
            measure = load_measure(spec, taken)
        except ValueError as error:
            raise InputError(str(error)) from None
        taken.add(measure.name)
        own.append(measure.identity)
    return {**settings.model_dump(mode="json"), "own": own}


def _resolved(entries: Sequence[ModelEntry]) -> list[tuple[ModelEntry, str | None]]:
    """The entries with timm's knowledge filled in; timm is imported in a process of its own, and only if needed."""
    if all(e.recipe and e.preprocessing and e.img_size and e.family for e in entries):
        return [(entry, None) for entry in entries]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_ask_timm, list(entries)).result()


def _ask_timm(entries: Sequence[ModelEntry]) -> list[tuple[ModelEntry, str | None]]:
    from pipeline.zoo import with_timm_defaults

    return with_timm_defaults(entries)


def _weights(entry: ModelEntry, timm_weights: str | None, cache: Path) -> tuple[Path | None, str]:
    """The file of an entry's weights, if it has one, and their identity."""
    if entry.recipe is not None:
        assert entry.preprocessing is not None
        identity = "trained:" + content_hash(
            TRAINING_VERSION,
            entry.architecture,
            entry.model_kwargs,
            entry.img_size,
            entry.preprocessing.model_dump(),
            entry.recipe.model_dump(),
        )
        return cache / "weights" / f"{identity.removeprefix('trained:')}.safetensors", identity
    if entry.checkpoint is not None:
        return entry.checkpoint, f"sha256:{_file_sha256(entry.checkpoint, cache)}"
    assert timm_weights is not None
    return None, timm_weights


def _file_sha256(path: Path, cache: Path) -> str:
    """The file's hash, remembered until its size or time of change differs."""
    stat = path.stat()
    note = cache / "hashes" / content_hash(str(path), stat.st_size, stat.st_mtime_ns)
    if note.is_file():
        return note.read_text()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomically(note, lambda target: target.write(digest.encode()))
    return digest
