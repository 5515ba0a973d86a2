"""Identities of embeddings and rows: hashes of everything that changes a number."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dsmi_zoo._util.files import file_sha256, write_atomically
from dsmi_zoo._util.hashing import content_hash
from dsmi_zoo._util.user_code import find_module
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from ..config.run import MeasureSettings, RunConfig
from ..measures.core.estimate import method_for
from ..measures.own import find_measure, measure_identity, try_measures
from ..store.schema import COLUMN_NAMES

TRAINING_VERSION = (
    2  # raised whenever pipeline/embedding/train.py comes to other weights for the same recipe
)
MEASURES_VERSION = (
    6  # raised whenever a measure comes to another number for the same embedding and settings
)
ESTIMATES_VERSION = 7  # the same, where eigenvalues are estimated; never below the other


def own_identities(settings: MeasureSettings) -> list[str]:
    """What identifies each measure of the user's own: its name and its module's content.

    Raises
    ------
    InputError
        For one that is not found, or whose name is taken.
    """
    taken = set(COLUMN_NAMES)
    identities = []
    for spec in settings.own:
        module, name = find_measure(spec, taken)
        taken.add(name)
        identities.append(measure_identity(spec, module))
    return identities


def check_own_measures(config: RunConfig) -> None:
    """Tell what is wrong with measures of the user's own before anything is computed; their code runs elsewhere.

    Raises
    ------
    InputError
        For one that is not found, cannot be imported, or ends or holds up the process that imports it.
    """
    own_identities(config.measures)
    try_measures(config.measures.own, config.compute.model_timeout)


def measures_identity(settings: MeasureSettings, n_samples: int) -> dict[str, Any]:
    """What of the measure settings the identity of a row of so many samples holds; own measures enter by their source.

    A better estimate of eigenvalues leaves rows as they are whose eigenvalues were all computed.
    """
    is_estimated = method_for(settings.method, n_samples) == "lanczos"
    version = ESTIMATES_VERSION if is_estimated else MEASURES_VERSION
    return {**settings.model_dump(mode="json"), "own": own_identities(settings), "version": version}


def row_identity(embedding_id: str, measures: Mapping[str, Any]) -> str:
    """The identity of a row: its embedding's, and that of the measures."""
    return content_hash(embedding_id, measures)


def versions_of_measures(
    settings: MeasureSettings, n_samples: int
) -> Callable[[Mapping[str, Any]], int | None]:
    """A function that says which version of the measures computed a row; None stands for one that is not known."""
    today = measures_identity(settings, n_samples)
    versions = range(today["version"], 0, -1)

    def measured_by(row: Mapping[str, Any]) -> int | None:
        for version in versions:
            if row["row_id"] == row_identity(row["embedding_id"], today | {"version": version}):
                return version
        return None

    return measured_by


def weights_of(entry: ModelEntry, cache: Path) -> tuple[Path | None, str]:
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
    if entry.weights is None:
        assert entry.builder is not None
        return None, "built"
    return None, f"timm:{entry.weights}"


def builder_hashes(entries: Iterable[ModelEntry]) -> dict[str, str]:
    """SHA-256 of the file of each builder's module, by builder.

    Raises
    ------
    InputError
        Names an entry whose builder's module is not found, or is another one than the file in the current directory.
    """
    hashes: dict[str, str] = {}
    for entry in entries:
        if entry.builder is None or entry.builder in hashes:
            continue
        module = entry.builder.partition(":")[0]
        hashes[entry.builder] = find_module(
            module, f"{entry.model}: builder {entry.builder}"
        ).sha256
    return hashes


def own_code_of(entry: ModelEntry, builder_sha256: str | None) -> dict[str, str]:
    """What of an entry's builder and layer its embedding's identity holds; nothing without them."""
    given = {"builder": entry.builder, "builder_sha256": builder_sha256, "layer": entry.layer}
    return {name: value for name, value in given.items() if value is not None}


def _file_sha256(path: Path, cache: Path) -> str:
    """The file's hash, remembered until its size or time of change differs."""
    stat = path.stat()
    note = cache / "hashes" / content_hash(str(path), stat.st_size, stat.st_mtime_ns)
    if note.is_file() and re.fullmatch("[0-9a-f]{64}", noted := note.read_text(errors="replace")):
        return noted
    digest = file_sha256(path)
    write_atomically(note, lambda target: target.write(digest.encode()))
    return digest
