"""The plan of all entries that a run has had."""

import logging

from dsmi_zoo._util.paths import is_file
from dsmi_zoo.data_catalog.models.registry import BUILT_IN
from dsmi_zoo.data_catalog.models.trained_zoos import seeded_zoo
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.plan import Plan, make_plan
from dsmi_zoo.pipeline.store.record import RunRecord

log = logging.getLogger(__name__)


def plan_of_all(config: RunConfig, record: RunRecord) -> Plan:
    """Plan the entries of all catalogues that a run has had; a later one's entry replaces an earlier one's."""
    plan = make_plan(config)
    jobs = {job.slug: job for job in plan.jobs}
    for catalog in record.earlier_catalogs:
        if (
            catalog.name not in BUILT_IN
            and seeded_zoo(catalog.name) is None
            and not is_file(catalog.name)
        ):
            log.warning(f"{catalog.name} is no longer there; its models cannot be computed again")
            continue
        earlier = make_plan(config.model_copy(update={"catalog": catalog.name}))
        jobs = {job.slug: job for job in earlier.jobs} | jobs
    return Plan(config, plan.subset, tuple(jobs.values()))
