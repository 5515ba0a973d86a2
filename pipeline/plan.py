"""What a run has to do, known before anything is built, downloaded or trained: its entries and their identities."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data_catalog.datasets import open_dataset
from ..data_catalog.entries import ModelEntry, Preprocessing, target_unit
from ..data_catalog.errors import InputError
from ..data_catalog.filters import apply_filters
from ..data_catalog.image_files import ImageFiles, unreadable
from ..data_catalog.imagenet import MEAN, PRESETS, STD
from ..data_catalog.images import LabelledImages
from ..data_catalog.models import load_models
from ..data_catalog.subset import Subset, select_subset
from ..data_catalog.text import shown
from .atomic_files import write_atomically
from .builder_defaults import with_builder_defaults
from .config import MeasureSettings, RunConfig, SubsetSettings, content_hash
from .file_hashes import file_sha256
from .forkserver import process_pool
from .measures.estimate import method_for
from .measures.own import find_measure, measure_identity, try_measures
from .schema import COLUMN_NAMES
from .users_modules import find_module
from .views import view_path

RANDOM_WEIGHTS = "random:0"  # the seed
TRAINING_VERSION = 2  # raised whenever pipeline/train.py comes to other weights for the same recipe
MEASURES_VERSION = (
    6  # raised whenever a measure comes to another number for the same embedding and settings
)
ESTIMATES_VERSION = 7  # the same, where eigenvalues are estimated; never below the other


@dataclass(frozen=True)
class Job:
    """One entry of a run, with all that a worker needs.

    ``weights`` is the file that holds (or, for a model to be trained, will hold) them; None means those that
    ``entry.weights`` names, or else those with which the entry's builder makes its network; or, in a
    run with ``random_weights``, those with which timm initialises it. ``builder_sha256`` is the hash of the file of the
    builder's module.
    """

    entry: ModelEntry
    preprocessing: Preprocessing
    weights: Path | None
    view: Path
    embedding_id: str
    row_id: str
    builder_sha256: str | None = None

    @property
    def slug(self) -> str:
        """The entry's file name."""
        return self.entry.slug

    @property
    def name(self) -> str:
        """The entry's name for people."""
        return str(self.entry)


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
    # The current folder of workers may be another one.
    config = config.model_copy(update={"out": config.folder})
    check_own_measures(config)
    entries = apply_filters(
        load_models(config.catalog, config.models), config.filters, config.catalog
    )
    taken = sorted({name for entry in entries for name in entry.extras} & COLUMN_NAMES)
    if taken:
        raise InputError(
            f"{config.catalog}: the column {taken[0]!r} is one that the run fills; rename it"
        )
    for entry in entries:
        _refuse_seen_images(entry, config.subset.dataset)
    cache = config.compute.cache
    subset = open_subset(config.subset, config.repeats, cache)
    measure_id = measures_identity(config.measures, len(subset.labels) * subset.repeats)
    builders = builder_hashes(entries)
    jobs: dict[str, Job] = {}
    for entry in resolve_entries(entries):
        if config.random_weights:
            entry = without_weights(entry)
        assert entry.img_size is not None
        preprocessing = protocol_preprocessing(entry, config.protocol)
        if entry.slug in jobs:
            raise InputError(
                f"{config.catalog}: {entry} stands there twice; the pair (model, img_size) must be unique"
            )
        weights, weights_id = (
            (None, RANDOM_WEIGHTS) if config.random_weights else _weights(entry, cache)
        )
        builder_sha256 = builders[entry.builder] if entry.builder is not None else None
        own_code = _own_code(entry, builder_sha256)
        embedding_id = content_hash(
            weights_id,
            entry.architecture,
            entry.model_kwargs,
            subset.digest,
            entry.img_size,
            preprocessing.model_dump(),
            config.protocol,
            config.precision,
            *([own_code] if own_code else []),
            *([f"pool={config.pool}"] if config.pool else []),
        )
        jobs[entry.slug] = Job(
            entry=entry,
            preprocessing=preprocessing,
            weights=weights,
            view=view_path(cache, subset.digest, entry.img_size, preprocessing),
            embedding_id=embedding_id,
            row_id=row_identity(embedding_id, measure_id),
            builder_sha256=builder_sha256,
        )
    return Plan(config, subset, tuple(jobs.values()))


def _refuse_seen_images(entry: ModelEntry, dataset: str) -> None:
    """Refuse another split of the images that the entry's recipe trains on: some of them it has seen."""
    trained_on = entry.recipe.dataset if entry.recipe else dataset
    if trained_on != dataset and trained_on.split(":")[0] == dataset.split(":")[0]:
        raise InputError(
            f"--dataset {dataset} is another split of the images that {entry} is trained on; use --dataset {trained_on}"
        )


def without_weights(entry: ModelEntry) -> ModelEntry:
    """The entry without its weights, and without what is known of them, their accuracies above all.

    Raises
    ------
    InputError
        For one whose network is made by code of its own.
    """
    if entry.builder is not None:
        raise InputError(
            f"--random-weights is for networks of timm; {entry} is made by {entry.builder}: leave it out"
        )
    sources = ("weights", "checkpoint", "recipe")
    known_of_them = ("pretraining", "extra_data", "license", "group", "top1", "top5")
    extras = {
        name: value
        for name, value in entry.extras.items()
        if target_unit(name) is None and name != "pretraining_images"
    }
    return entry.model_copy(update={**dict.fromkeys((*sources, *known_of_them)), "extras": extras})


def protocol_preprocessing(entry: ModelEntry, protocol: str) -> Preprocessing:
    """How the protocol feeds an entry: its own evaluation transform, or the paper's random crops for every model."""
    if protocol == "paper":
        return Preprocessing(
            crop_pct=1, crop_mode="paper", interpolation="bicubic", mean=MEAN, std=STD
        )
    assert entry.preprocessing is not None
    return entry.preprocessing


def open_subset(settings: SubsetSettings, repeats: int, cache: Path) -> Subset:
    """The images that the settings choose; without those that cannot be decoded, if such are to be skipped.

    Raises
    ------
    InputError
        For an unknown data set or class, a folder that is not what it should be, too few images.
    """
    images = open_dataset(
        settings.dataset, settings.data_root, allow_train_images=settings.allow_train_images
    )
    classes = _class_numbers(settings.classes, images)
    while True:
        subset = select_subset(
            images,
            classes=classes,
            images_per_class=settings.images_per_class,
            repeats=repeats,
            seed=settings.seed,
        )
        bad = _bad_images(subset, cache) if settings.skip_bad_images else {}
        if not bad:
            return subset
        images = images.take(
            np.array([i for i, name in enumerate(images.names) if name not in bad])
        )


def _bad_images(subset: Subset, cache: Path) -> dict[str, str]:
    """The chosen images that cannot be decoded, by name; a subset that was once found good is not read again."""
    images = subset.images
    note = cache / "checked" / subset.digest
    if not isinstance(images, ImageFiles) or note.exists():
        return {}
    bad = unreadable([images.path(number) for number in range(len(images.names))])
    if not bad:
        write_atomically(note, lambda file: None)
    return {images.names[number]: problem for number, problem in bad.items()}


def _class_numbers(classes: str | None, images: LabelledImages) -> tuple[int, ...] | None:
    """A preset, or a list of classes by name or number, as labels."""
    if classes is None or classes == "all":
        return None
    if classes in PRESETS:
        if images.classifier_width != 1000:
            raise InputError(
                f"--classes {classes} names ImageNet classes; {images.name} has others"
            )
        return PRESETS[classes]
    number = {name: label for label, name in images.class_names.items()}
    chosen = []
    for part in (p.strip() for p in classes.split(",")):
        label = number.get(part, _as_label(part))
        if label not in images.class_names:
            known = ", ".join([*PRESETS, "all", *list(number)[:3]])
            raise InputError(
                f"--classes: {images.name} has no class {shown(part)}; there are {known} ..."
            )
        chosen.append(label)
    return tuple(chosen)


def _as_label(text: str) -> int:
    """A class's number, -1 for what is none; Python refuses to read numbers of thousands of digits."""
    return int(text) if text.isdecimal() and len(text) < 10 else -1


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


def resolve_entries(entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    """The entries with what their catalogue leaves open: by habit for those with a builder, by timm for the others.

    timm is imported in a process of its own, and only if needed.
    """
    entries = [with_builder_defaults(entry) if entry.builder else entry for entry in entries]
    unclear = [entry for entry in entries if not _is_complete(entry)]
    if not unclear:
        return entries
    with process_pool(1) as pool:
        answers = iter(pool.submit(_ask_timm, unclear).result())
    return [entry if _is_complete(entry) else next(answers) for entry in entries]


def _is_complete(entry: ModelEntry) -> bool:
    has_weights = entry.builder or entry.recipe or entry.checkpoint or entry.weights
    return bool(has_weights and entry.preprocessing and entry.img_size and entry.family)


def _ask_timm(entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    from .zoo import with_timm_defaults

    return with_timm_defaults(entries)


def _weights(entry: ModelEntry, cache: Path) -> tuple[Path | None, str]:
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


def _own_code(entry: ModelEntry, builder_sha256: str | None) -> dict[str, str]:
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
