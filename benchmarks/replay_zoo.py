"""How well the zoo's models fill the workers: a replay of imagenet-2023 with expected costs as sleeping times.

    python benchmarks/replay_zoo.py                   1, 4, 16 and 64 workers, about 6 minutes

The real plan (1,002 models, their views), the real order, hand-out and Dask scheduler; each task sleeps for its
expected time, scaled so that the lower bound max(total / workers, longest model) takes a stated number of seconds.
Views are tasks of their own, which their models wait for, as in a run. Costs are those of 1,000 images on a GPU of
timm's published throughput. Printed: makespan over lower bound.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from distributed import Client, LocalCluster

from dsmi_zoo.data_catalog.models import load_models
from dsmi_zoo.jobs.clusters.dask_workers import DaskWorkers
from dsmi_zoo.pipeline.cost import DECODE_S, RESNET18_THROUGHPUT, estimate
from dsmi_zoo.pipeline.graph import _Dispatch, _Stage
from dsmi_zoo.pipeline.order import longest_first
from dsmi_zoo.pipeline.plan import Job, protocol_preprocessing, resolve_entries
from dsmi_zoo.pipeline.task import Done
from dsmi_zoo.pipeline.views import view_path

IMAGES = 1000
SHORTEST_MEAN_S = 0.3  # of a task, after scaling: a hand-out takes some milliseconds, which do not shrink


def slept(job: Job, seconds: float) -> Done:
    """What stands for a model's work."""
    time.sleep(seconds)
    return Done(job.slug, job.name, True, "", seconds)


def made(view: Path, seconds: float) -> None:
    """What stands for making a view."""
    time.sleep(seconds)
    view.touch()


def zoo(folder: Path) -> list[Job]:
    """The 1,002 models with their views."""
    jobs = []
    for entry in resolve_entries(load_models("imagenet-2023")):
        assert entry.img_size is not None
        preprocessing = protocol_preprocessing(entry, "standard")
        view = view_path(folder, "replay", entry.img_size, preprocessing)
        jobs.append(Job(entry, preprocessing, None, view, "", ""))
    return jobs


def replay(jobs: Sequence[Job], workers: int, bound_s: float) -> tuple[float, float]:
    """The makespan over the lower bound, and the lower bound in seconds before scaling."""
    expected = {job.slug: estimate(job, RESNET18_THROUGHPUT).seconds(IMAGES) for job in jobs}
    views = {job.view for job in jobs}
    decoding = IMAGES * DECODE_S
    total = sum(expected.values()) + decoding * len(views)
    bound = max(total / workers, max(expected.values()))
    scale = bound_s / bound

    def stages(job: Job) -> Sequence[_Stage]:
        return (_Stage(job.view, (made, (job.view, decoding * scale))),)

    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=None,
            memory_limit=0, silence_logs="critical",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.wait_for_workers(workers)
        dispatch = _Dispatch(
            DaskWorkers(client),
            jobs,
            work=lambda job: (slept, (job, expected[job.slug] * scale)),
            fail=lambda job, error: Done(job.slug, job.name, False, str(error), 0.0),
            stages=stages,
            order=longest_first(lambda job: expected[job.slug] + (0 if job.view.exists() else decoding)),
        )
        started = time.perf_counter()
        done = list(dispatch.run())
        seconds = time.perf_counter() - started
    assert len(done) == len(jobs)
    assert all(entry.ok for entry in done)
    return seconds / bound_s, bound


def main() -> None:
    """Replay and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=90, help="of the lower bound, after scaling")
    options = parser.parse_args()
    print("| workers | lower bound | makespan over lower bound |\n| ---: | ---: | ---: |")
    for workers in options.workers:
        with TemporaryDirectory() as folder:
            (Path(folder) / "views").mkdir()
            jobs = zoo(Path(folder))
            ratio, bound = replay(jobs, workers, max(options.seconds, SHORTEST_MEAN_S * len(jobs) / workers))
        print(f"| {workers} | {bound:,.0f} s | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
