"""Run records of fictitious runs, for tests of the code that reads them."""

from datetime import UTC, datetime

from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.store.record import (
    FORMAT,
    CatalogRecord,
    EntryRecord,
    RunRecord,
    SubsetRecord,
)


def record_of(*entries: EntryRecord, catalog: str = "digits") -> RunRecord:
    """Return a complete record with these entries."""
    config, moment = RunConfig(), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return RunRecord(
        format=FORMAT,
        config=config,
        identity=config.identity(),
        catalog=CatalogRecord(name=catalog, sha256="c" * 64),
        subset=SubsetRecord(
            dataset="digits", hash="0123abcd", n_samples=447, n_images=149, n_classes=10, seed=0
        ),
        entries=entries,
        versions={"python": "3.11.2", "torch": "2.9.0"},
        git_commit="d" * 40,
        created_at=moment,
        updated_at=moment,
    )
