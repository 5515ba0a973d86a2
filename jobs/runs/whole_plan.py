"""The plan, and the entries, of all catalogues that a run has had."""

import logging

from dsmi_zoo._util.paths import is_file
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import BUILT_IN, load_models
from dsmi_zoo.data_catalog.models.trained_zoos import seeded_zoo
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.plan import Plan, make_plan, resolve_entries
from dsmi_zoo.pipeline.store.record import RunRecord

log = logging.getLogger(__name__)


def plan_of_all(config: RunConfig, record: RunRecord) -> Plan:
    """Plan the entries of all catalogues that a run has had; a later one's entry replaces an earlier one's."""
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
    """Return the catalogue entries of a run's models, as far as its catalogues are still there; no image is read."""
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
