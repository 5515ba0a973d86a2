"""The plan of a run: its entries and their identities, before anything is built, downloaded or trained."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import content_hash
from dsmi_zoo._util.forkserver import process_pool
from dsmi_zoo._util.paths import is_file
from dsmi_zoo.data_catalog.datasets.class_order import with_open_order
from dsmi_zoo.data_catalog.datasets.imagenet import MEAN, STD
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing, target_unit
from dsmi_zoo.data_catalog.models.filters import apply_filters
from dsmi_zoo.data_catalog.models.registry import BUILT_IN, load_models, seeded_zoo
from dsmi_zoo.data_catalog.models.taxonomy import kind_of

from ..config.compute import MODELS
from ..config.run import RunConfig
from ..embedding.views import view_path
from ..store.record import RunRecord
from ..store.schema import COLUMN_NAMES
from .identity import (
    builder_hashes,
    check_own_measures,
    measures_identity,
    own_code_of,
    row_identity,
    weights_of,
)
from .job import Job
from .layers import layer_entries
from .subset import open_subset

__all__ = ["Job", "Plan", "make_plan"]

RANDOM_WEIGHTS = "random:0"  # the seed
IMG_SIZE = 224
PREPROCESSING = Preprocessing(crop_pct=0.875, interpolation="bicubic", mean=MEAN, std=STD)
log = logging.getLogger(__name__)


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
        For any mistake of the user in them.
    """
    # Workers may have another current folder.
    config = config.model_copy(update={"out": config.folder})
    check_own_measures(config)
    chosen = _chosen_entries(config)
    subset = open_subset(config.subset, config.repeats, config.compute.cache)
    measures = measures_identity(config.measures, len(subset.labels) * subset.repeats)
    builders = builder_hashes(chosen)
    jobs: dict[str, Job] = {}
    for entry in resolve_entries(chosen):
        if entry.slug in jobs:
            raise InputError(
                f"{config.catalog}: {entry} is there twice; the pair (model, img_size) must be unique"
            )
        jobs[entry.slug] = _job(config, subset, entry, builders, measures)
    if config.layers:
        compute = config.compute
        added = layer_entries(
            list(jobs.values()), config.layers, compute.cache, compute.model_timeout
        )
        of_layers = {
            slug: [_job(config, subset, entry, builders, measures) for entry in entries]
            for slug, entries in added.items()
        }
        jobs = _with_layers(jobs, of_layers)
    if any(_may_have_outputs(job.entry, len(subset.orders.names)) for job in jobs.values()):
        subset = replace(subset, account=with_open_order(subset.account, subset.orders))
    return Plan(config, subset, tuple(jobs.values()))


def _with_layers(jobs: Mapping[str, Job], of_layers: Mapping[str, Sequence[Job]]) -> dict[str, Job]:
    """Return the jobs by slug, each followed by those of its network's other layers."""
    together: dict[str, Job] = {}
    for slug, job in jobs.items():
        for one in (job, *of_layers.get(slug, ())):
            if one is not job and one.slug in jobs:
                raise InputError(
                    f"--layers: the catalogue has an entry {one.entry} of other content; rename it"
                )
            together[one.slug] = one
    return together


def _may_have_outputs(entry: ModelEntry, count: int) -> bool:
    """Return whether the entry's classifier may have that many outputs; only a builder's is unknown."""
    return entry.builder is not None or entry.model_kwargs.get("num_classes", 1000) == count


def _chosen_entries(config: RunConfig) -> list[ModelEntry]:
    """Load the entries that the settings choose, and check that they fit the run."""
    matching = load_models(config.catalog, config.models)
    entries = apply_filters(matching, config.filters, config.catalog)
    taken = sorted({name for entry in entries for name in entry.extras} & COLUMN_NAMES)
    if taken:
        raise InputError(
            f"{config.catalog}: the column {taken[0]!r} is one that the run fills; rename it"
        )
    for entry in entries:
        _refuse_seen_images(entry, config.subset.dataset)
    return entries


def _job(
    config: RunConfig,
    subset: Subset,
    entry: ModelEntry,
    builders: Mapping[str, str],
    measures: Mapping[str, Any],
) -> Job:
    if config.random_weights:
        entry = without_weights(entry)
        weights, weights_id = None, RANDOM_WEIGHTS
    else:
        weights, weights_id = weights_of(entry, config.compute.cache)
    assert entry.img_size is not None
    preprocessing = protocol_preprocessing(entry, config.protocol)
    builder_sha256 = builders[entry.builder] if entry.builder is not None else None

    def identity(own_code: dict[str, str]) -> str:
        return content_hash(
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
            *subset.orders.identity,
            *([f"checkpoint_key={entry.checkpoint_key}"] if entry.checkpoint_key else []),
        )

    own_code = own_code_of(entry, builder_sha256)
    embedding_id = identity(own_code)
    return Job(
        entry=entry,
        preprocessing=preprocessing,
        weights=weights,
        view=view_path(config.compute.cache, subset.digest, entry.img_size, preprocessing),
        embedding_id=embedding_id,
        row_id=row_identity(embedding_id, measures),
        builder_sha256=builder_sha256,
        network_id=identity({key: own_code[key] for key in own_code.keys() - {"layer"}}),
    )


def _refuse_seen_images(entry: ModelEntry, dataset: str) -> None:
    """Raise InputError for another split of the data set that the entry trains on: it has seen some of the images."""
    trained_on = entry.recipe.dataset if entry.recipe else dataset
    if trained_on != dataset and trained_on.split(":")[0] == dataset.split(":")[0]:
        raise InputError(
            f"--dataset {dataset} is another split of the images that {entry} is trained on; use --dataset {trained_on}"
        )


def without_weights(entry: ModelEntry) -> ModelEntry:
    """Return the entry without its weights and all facts about them, such as accuracies.

    Raises
    ------
    InputError
        When a builder makes the network.
    """
    if entry.builder is not None:
        raise InputError(
            f"--random-weights is for networks of timm; {entry} is made by {entry.builder}: leave it out"
        )
    sources = ("weights", "checkpoint", "checkpoint_key", "recipe")
    known_of_them = ("pretraining", "extra_data", "license", "group", "top1", "top5")
    extras = {
        name: value
        for name, value in entry.extras.items()
        if target_unit(name) is None and name != "pretraining_images"
    }
    return entry.model_copy(update={**dict.fromkeys((*sources, *known_of_them)), "extras": extras})


def protocol_preprocessing(entry: ModelEntry, protocol: str) -> Preprocessing:
    """Return the entry's own evaluation transform or, by the paper's protocol, random crops."""
    if protocol == "paper":
        return Preprocessing(
            crop_pct=1, crop_mode="paper", interpolation="bicubic", mean=MEAN, std=STD
        )
    assert entry.preprocessing is not None
    return entry.preprocessing


def resolve_entries(entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Complete the entries: by common defaults if they have a builder, else by timm's.

    timm is imported in another process, and only if needed.
    """
    entries = [with_builder_defaults(entry) if entry.builder else entry for entry in entries]
    unclear = [entry for entry in entries if not _is_complete(entry)]
    if not unclear:
        return entries
    with process_pool(1, MODELS) as pool:
        answers = iter(pool.submit(_ask_timm, unclear).result())
    return [entry if _is_complete(entry) else next(answers) for entry in entries]


def _is_complete(entry: ModelEntry) -> bool:
    has_weights = entry.builder or entry.recipe or entry.checkpoint or entry.weights
    return bool(has_weights and entry.preprocessing and entry.img_size and entry.family)


def _ask_timm(entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    from ..networks.timm import with_timm_defaults

    return with_timm_defaults(entries)


def with_builder_defaults(entry: ModelEntry) -> ModelEntry:
    """Fill in what the catalogue leaves open: the family from the builder's module, ImageNet's usual preprocessing."""
    assert entry.builder is not None
    module = entry.builder.partition(":")[0]
    family = entry.family or module.rpartition(".")[2]
    defaults = {
        "family": family,
        "kind": kind_of(family, entry.architecture),
        "img_size": IMG_SIZE,
        "preprocessing": PREPROCESSING,
    }
    return entry.model_copy(
        update={name: value for name, value in defaults.items() if getattr(entry, name) is None}
    )


def plan_of_all(config: RunConfig, record: RunRecord) -> Plan:
    """Plan the entries of all catalogues that a run has used; a later one's entry replaces an earlier one's."""
    plan = make_plan(config)
    jobs = {job.slug: job for job in plan.jobs}
    for catalog in record.earlier_catalogs:
        if not _is_there(catalog.name):
            log.warning(f"{catalog.name} is no longer there; its models cannot be computed again")
            continue
        earlier = make_plan(config.model_copy(update={"catalog": catalog.name}))
        jobs = {job.slug: job for job in earlier.jobs} | jobs
    return Plan(config, plan.subset, tuple(jobs.values()))


def entries_of(record: RunRecord) -> list[ModelEntry]:
    """Return the catalogue entries of a run's models from those of its catalogues that still exist; read no image."""
    recorded = {entry.slug for entry in record.entries}
    entries: dict[str, ModelEntry] = {}
    for name in (*(one.name for one in record.earlier_catalogs), record.config.catalog):
        if not _is_there(name):
            continue
        of_catalog = resolve_entries(load_models(name))
        entries |= {entry.slug: entry for entry in of_catalog if entry.slug in recorded}
    return list(entries.values())


def _is_there(catalog: str) -> bool:
    """Return whether a catalogue is built in, or a file that still exists."""
    return catalog in BUILT_IN or seeded_zoo(catalog) is not None or is_file(catalog)
