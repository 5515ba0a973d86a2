"""What the graph itself costs: models whose work is empty, through the real driver, Dask and store.

    python benchmarks/empty_models.py                 10,000 models on 2 workers

Each model's task writes its row and does nothing else. Printed: milliseconds a model, and the driver's proportional set
size (its own memory, and its share of what others use too) at every tenth of the way.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from dsmi_zoo.data_catalog.entries import ModelEntry, Preprocessing
from dsmi_zoo.jobs.clusters import open_cluster
from dsmi_zoo.pipeline.config import ComputeSettings
from dsmi_zoo.pipeline.graph import _Dispatch
from dsmi_zoo.pipeline.order import Expectation, longest_first
from dsmi_zoo.pipeline.plan import Job
from dsmi_zoo.pipeline.store import write_row
from dsmi_zoo.pipeline.task import Done, facts

MEBIBYTE = 2**20


def empty_row(job: Job, out: Path) -> Done:
    """The row of a model that nothing is computed for."""
    row: dict[str, Any] = {**facts(job.entry), "status": "ok", "row_id": job.row_id, "embedding_id": job.embedding_id}
    write_row(out, job.slug, row | {"finished_at": datetime.now(UTC)})
    return Done(job.slug, job.name, True, "", 0.0, (0.001, 0.001, 0.001))


def entries(count: int) -> list[Job]:
    """So many models, of different cost and 80 views."""
    same = {"crop_pct": 1, "crop_mode": "center", "interpolation": "bicubic", "mean": (0, 0, 0), "std": (1, 1, 1)}
    jobs = []
    for number in range(count):
        entry = ModelEntry(model=f"model {number}", architecture="none", img_size=224, params_m=1 + number % 97)
        view = Path(f"view-{number % 80}.npy")
        jobs.append(Job(entry, Preprocessing(**same), None, view, f"embedding {number}", f"row {number}"))
    return jobs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    jobs, driver, memory = entries(options.models), psutil.Process(), []
    expectation, by_slug = Expectation(1000), {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        with open_cluster(ComputeSettings(workers=options.workers), out) as workers:
            workers.client.wait_for_workers(options.workers)
            by_slug.update({job.slug: job for job in jobs})
            dispatch = _Dispatch(
                workers,
                jobs,
                work=lambda job: (empty_row, (job, out)),
                fail=lambda job, error: Done(job.slug, job.name, False, str(error), 0.0),
                order=longest_first(expectation.seconds),
            )
            started = time.perf_counter()
            for number, done in enumerate(dispatch.run(), 1):
                assert done.ok, done.message
                expectation.learn(by_slug[done.slug], done)
                if number % (len(jobs) // 10) == 0:
                    memory.append(driver.memory_full_info().pss / MEBIBYTE)
            seconds = time.perf_counter() - started
        rows = len(list((out / "results").glob("*.parquet")))
    assert rows == len(jobs), rows
    result = {
        "models": len(jobs),
        "workers": options.workers,
        "milliseconds_a_model": round(1000 * seconds / len(jobs), 2),
        "driver_pss_mib": [round(value) for value in memory],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
