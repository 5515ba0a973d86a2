"""Cost of the task graph alone: models that need no work, through the real driver, Dask and store.

    python benchmarks/empty_models.py                 10,000 models on 2 workers

Each model's three tasks go through the graph and the window as in a run, but only note the attempt and write a row.
Prints milliseconds per model, processor milliseconds per model (driver and workers), and the driver's proportional set
size (its private memory, and its share of memory that other processes use too) after every tenth of the models.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed import Client, Future

from dsmi_zoo.data_catalog.datasets.base import ImageArray
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing
from dsmi_zoo.jobs.workers import open_workers
from dsmi_zoo.pipeline.config.compute import ComputeSettings
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.engine.attempts import Attempts
from dsmi_zoo.pipeline.engine.graph import ZooGraph
from dsmi_zoo.pipeline.engine.row_content import facts
from dsmi_zoo.pipeline.engine.window import Window
from dsmi_zoo.pipeline.plan.job import Outcome
from dsmi_zoo.pipeline.plan.order import longest_first
from dsmi_zoo.pipeline.plan.plan import Job, Plan
from dsmi_zoo.pipeline.store.run_folder import write_row

MEBIBYTE = 2**20


def empty_row(job: Job, out: Path) -> Outcome:
    """Write a model's row without computing anything."""
    row: dict[str, Any] = {
        **facts(job.entry),
        "status": "ok",
        "row_id": job.row_id,
        "embedding_id": job.embedding_id,
    }
    write_row(out, job.slug, row | {"finished_at": datetime.now(UTC)})
    return Outcome(job.slug, job.name, True, "", 0.0)


def nothing(*_: object) -> None:
    """Do nothing, in place of every task that is not a row."""


class EmptyGraph(ZooGraph):
    """The zoo's graph with tasks that do nothing but write a row."""

    def __init__(self, client: Client, plan: Plan) -> None:
        self._jobs = {job.name: job for job in plan.jobs}
        super().__init__(client, plan, plan.jobs)

    def task(
        self, kind: str, name: str, identity: str, priority: int, function: Any, *arguments: Any
    ) -> Future:
        """Submit an empty task with the same key and dependencies."""
        needed = [argument for argument in arguments if isinstance(argument, Future)]
        if kind != "row":
            return super().task(kind, name, identity, priority, nothing, *needed)
        job, out = self._jobs[name], self._config.folder
        work = partial(Attempts(out, "row", job.slug).run, empty_row, job, out)
        return super().task(kind, name, identity, priority, run_after_dependencies, work, *needed)


def run_after_dependencies(work: partial[Outcome], *_: object) -> Outcome:
    """Run ``work`` after its dependencies, the other arguments."""
    done: Outcome = work()
    return done


def make_jobs(count: int) -> list[Job]:
    """Return ``count`` jobs of different cost, which share 80 views."""
    same = {
        "crop_pct": 1,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
    }
    jobs = []
    for number in range(count):
        entry = ModelEntry(
            model=f"model {number}", architecture="none", img_size=224, params_m=1 + number % 97
        )
        view = Path(f"view-{number % 80}.npy")
        jobs.append(
            Job(entry, Preprocessing(**same), None, view, f"embedding {number}", f"row {number}")
        )
    return jobs


def processor_s(processes: list[psutil.Process]) -> float:
    """Return the processor seconds that these processes have used so far."""
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    driver, memory = psutil.Process(), []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        config = RunConfig(out=out)
        subset = Subset(
            ImageArray("two", ("a", "b"), np.arange(2), np.zeros((2, 4, 4), np.uint8)), 1, 0, "two"
        )
        jobs = make_jobs(options.models)
        plan = Plan(config, subset, tuple(jobs))
        with open_workers(ComputeSettings(workers=options.workers), out) as workers:
            workers.client.wait_for_workers(options.workers)
            window = Window(
                workers, EmptyGraph(workers.client, plan), longest_first(jobs, len(subset.labels))
            )
            processes = [driver, *driver.children(recursive=True)]
            spent_s = -processor_s(processes)
            started = time.perf_counter()
            for number, (_, done) in enumerate(window.outcomes(), 1):
                assert done.ok, done.message
                if number % (len(jobs) // 10) == 0:
                    memory.append(driver.memory_full_info().pss / MEBIBYTE)
            seconds = time.perf_counter() - started
            spent_s += processor_s(processes)
        rows = len(list((out / "results").glob("*.parquet")))
    assert rows == len(jobs), rows
    result = {
        "models": len(jobs),
        "workers": options.workers,
        "milliseconds_a_model": round(1000 * seconds / len(jobs), 2),
        "processor_milliseconds_a_model": round(1000 * spent_s / len(jobs), 2),
        "driver_pss_mib": [round(value) for value in memory],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
