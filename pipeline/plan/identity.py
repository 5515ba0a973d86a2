"""Identities of embeddings and rows: hashes of everything that changes a number."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dsmi_zoo._util.files import content_hash, file_sha256, write_text
from dsmi_zoo._util.user_code import find_module
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from ..config.run import MeasureSettings, RunConfig
from ..measures.core.exact_or_estimated import method_for
from ..measures.own import find_measure, measure_identity, try_measures
from ..store.schema import COLUMN_NAMES

# Increase it when pipeline/embedding/train.py produces other weights for the same recipe.
TRAINING_VERSION = 2
# Increase it when a measure produces another number for the same embedding and settings.
MEASURES_VERSION = 6
# The same for estimated eigenvalues; never below MEASURES_VERSION.
ESTIMATES_VERSION = 9


def own_identities(settings: MeasureSettings) -> list[str]:
    """Return the identity of each of the user's own measures: its name and its module's content.

    Raises
    ------
    InputError
        When a measure is not found, or its name is taken.
    """
    taken = set(COLUMN_NAMES)
    identities = []
    for spec in settings.own:
        module, name = find_measure(spec, taken)
        taken.add(name)
        identities.append(measure_identity(spec, module))
    return identities


def check_own_measures(config: RunConfig) -> None:
    """Try the user's own measures in another process before anything is computed.

    Raises
    ------
    InputError
        When a measure is not found, cannot be imported, or ends or blocks the process that imports it.
    """
    own_identities(config.measures)
    try_measures(config.measures.own, config.compute.model_timeout)


def measures_identity(settings: MeasureSettings, n_samples: int) -> dict[str, Any]:
    """Return the measure settings that enter a row's identity, with the source of own measures.

    A new version of the estimated eigenvalues leaves rows with computed ones valid.
    """
    is_estimated = method_for(settings.method, n_samples) == "lanczos"
    version = ESTIMATES_VERSION if is_estimated else MEASURES_VERSION
    return {**settings.identity(), "own": own_identities(settings), "version": version}


def row_identity(embedding_id: str, measures: Mapping[str, Any]) -> str:
    """Return the identity of a row from those of its embedding and the measures."""
    return content_hash(embedding_id, measures)


def versions_of_measures(
    settings: MeasureSettings, n_samples: int
) -> Callable[[Mapping[str, Any]], int | None]:
    """Return a function that finds the version of the measures that computed a row, None if it is unknown."""
    today = measures_identity(settings, n_samples)
    versions = range(today["version"], 0, -1)

    def measured_by(row: Mapping[str, Any]) -> int | None:
        for version in versions:
            if row["row_id"] == row_identity(row["embedding_id"], today | {"version": version}):
                return version
        return None

    return measured_by


def weights_of(entry: ModelEntry, cache: Path) -> tuple[Path | None, str]:
    """Return the file of an entry's weights, if it has one, and their identity."""
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
    if entry.weights is None:
        assert entry.builder is not None
        return None, "built"
    return None, f"timm:{entry.weights}"


def builder_hashes(entries: Iterable[ModelEntry]) -> dict[str, str]:
    """Return the SHA-256 of the file of each builder's module, by builder.

    Raises
    ------
    InputError
        Names an entry whose builder's module is not found, or is not the file in the current directory.
    """
    hashes: dict[str, str] = {}
    for entry in entries:
        if entry.builder is None or entry.builder in hashes:
            continue
        module, where = entry.builder.partition(":")[0], f"{entry.model}: builder {entry.builder}"
        hashes[entry.builder] = find_module(module, where).sha256
    return hashes


def own_code_of(entry: ModelEntry, builder_sha256: str | None) -> dict[str, str]:
    """Return the part of an embedding's identity that comes from a builder and a layer; empty without them."""
    given = {"builder": entry.builder, "builder_sha256": builder_sha256, "layer": entry.layer}
    return {name: value for name, value in given.items() if value is not None}


def _file_sha256(path: Path, cache: Path) -> str:
    """Return a file's hash, cached until the file's size or modification time changes."""
    stat = path.stat()
    note = cache / "hashes" / content_hash(str(path), stat.st_size, stat.st_mtime_ns)
    if note.is_file() and re.fullmatch("[0-9a-f]{64}", noted := note.read_text(errors="replace")):
        return noted
    digest = file_sha256(path)
    write_text(note, digest)
    return digest
