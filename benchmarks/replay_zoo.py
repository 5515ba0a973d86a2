"""Utilisation of GPUs: a simulation of imagenet-2023 on a clock that jumps from one event to the next.

    python benchmarks/replay_zoo.py                                      every cell, 5 to 10 minutes
    python benchmarks/replay_zoo.py --gpus 1 8 --rates 8000 --processes 1 3 6 --variants
    python benchmarks/replay_zoo.py --gpus 64 --processes 3 --spread

The catalogue's 1,002 models with their views, the order, the graph (keys, dependencies, priorities), the rolling
window, and Dask's scheduler, workers and client are real. A task sleeps for its expected time
(``pipeline/plan/cost.py``): a row builds its model, waits for its turn on the GPU, keeps it for the forward passes, and
measures; a view is decoded; weights are cached. There are 3,000 images; the measures take 10.3 s per row on the CPU (4
s with the scores of version 0.1); a GPU processes the stated ResNet-18 images per second, and other models scale by
their published throughputs.

Prints two ratios and a share. The first is the total time over max(seconds of all forward passes / GPUs, longest
entry), which no schedule can beat. In the second the bound also has all work / workers, and the longest entry with its
view, which one core decodes first. The share is that of the time in which the GPUs compute. ``--spread`` places the
first entries: the longest on a GPU each, the shortest beside them. The ratios vary by a fifth from run to run, as
Dask's choice of workers does. Not simulated: reading from a disk, and processes that slow each other down.
"""

import virtual_clock  # before all that imports distributed  # isort: skip

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import dask
from distributed import Client, Future
from replayed_tasks import Times, gpu_busy_seconds, reset_gpus, sleep_row, sleep_task

from dsmi_zoo.jobs.clusters.local import SCHEDULING
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.engine import window
from dsmi_zoo.pipeline.engine.graph import ZooGraph
from dsmi_zoo.pipeline.engine.window import Window
from dsmi_zoo.pipeline.plan.cost import DECODE_S, estimate
from dsmi_zoo.pipeline.plan.order import longest_first
from dsmi_zoo.pipeline.plan.plan import Job, Plan, make_plan

IMAGES = 3000
NO_SETTINGS: Mapping[str, Any] = {}
VARIANTS: dict[str, dict[str, Any]] = {
    "no work stealing": {"distributed.scheduler.work-stealing": False},
    "all that is submitted goes to the workers at once": {
        "distributed.scheduler.worker-saturation": "inf"
    },
}


class ReplayedGraph(ZooGraph):
    """The zoo's graph with tasks that sleep."""

    def __init__(
        self, client: Client, plan: Plan, times: dict[str, Times], processes: int, spread: bool
    ) -> None:
        self._times, self._processes, self._spread = times, processes, spread
        workers = client.scheduler_info(n_workers=-1)["workers"]
        self._address_of = {worker["name"]: address for address, worker in workers.items()}
        super().__init__(client, plan, plan.jobs)

    def place(self, number: int) -> str | None:
        """Return the worker for one of the first entries, else None; each GPU gets a long entry and short ones."""
        gpus = len(self._address_of) // self._processes
        process, gpu = divmod(number, gpus)
        if not self._spread or process >= self._processes:
            return None
        return self._address_of[(gpus - 1 - gpu if process else gpu) * self._processes + process]

    def task(
        self, kind: str, name: str, identity: str, priority: int, function: Any, *arguments: Any
    ) -> Future:
        """Submit a sleeping task with the same key and dependencies."""
        needed = [argument for argument in arguments if isinstance(argument, Future)]
        place = self.place(-priority) if kind in ("row", "weights") else None
        with dask.annotate(**({"workers": [place], "allow_other_workers": True} if place else {})):
            if kind == "row":
                work = name, self._times[name], self._processes
                return super().task(kind, name, identity, priority, sleep_row, *work, *needed)
            decoding = IMAGES * DECODE_S if kind == "view" else 0.0
            return super().task(kind, name, identity, priority, sleep_task, decoding, *needed)


class Replayed(NamedTuple):
    """The total time over the bound of any schedule and over that of these workers, and the GPUs' busy share."""

    ratio: float
    of_workers: float
    busy: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f}; {self.of_workers:.2f} ({self.busy:.0%})"


class FixedWorkers:
    """A cluster with a constant number of workers."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def count(self) -> int:
        """Return the number of workers."""
        return self._workers


def times_of(jobs: Sequence[Job], rate: float) -> dict[str, Times]:
    """Return the times of each entry on a GPU that processes ``rate`` ResNet-18 images per second."""
    times = {}
    for job in jobs:
        cost = estimate(job, rate, untrained=False)
        forward = IMAGES * cost.image
        times[job.name] = Times(cost.build, forward, cost.seconds(IMAGES) - cost.build - forward)
    return times


def replay(
    plan: Plan,
    gpus: int,
    rate: float,
    processes: int,
    settings: Mapping[str, Any] = NO_SETTINGS,
    spread: bool = False,
) -> Replayed:
    """Replay the plan on ``gpus`` GPUs with ``processes`` processes each."""
    times = times_of(plan.jobs, rate)
    reset_gpus()

    def drive(client: Client, queue: virtual_clock.ReaderAwareQueue) -> float:
        graph = ReplayedGraph(client, plan, times, processes, spread)
        graph.subset.result()
        begun = time.time()
        rolling = Window(FixedWorkers(gpus * processes), graph, longest_first(plan.jobs, IMAGES))  # type: ignore[arg-type]
        rolling._ended = queue
        assert all(done.ok for _, done in rolling.outcomes())
        ended = time.time()
        graph.close()
        return ended - begun

    seconds = virtual_clock.with_cluster(gpus * processes, drive, SCHEDULING | dict(settings))
    forward = sum(entry.forward for entry in times.values())
    assert abs(gpu_busy_seconds() - forward) < 1
    longest = max(entry.alone for entry in times.values())
    bound = max(forward / gpus, longest)
    decoding = IMAGES * DECODE_S
    work = sum(entry.alone for entry in times.values())
    work += decoding * len({job.view for job in plan.jobs})
    of_workers = max(bound, work / (gpus * processes), longest + decoding)
    return Replayed(seconds / bound, seconds / of_workers, forward / gpus / seconds)


def main() -> None:
    """Replay and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 4, 8, 64])
    parser.add_argument("--rates", type=float, nargs="+", default=[8000, 36000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 4, 6])
    parser.add_argument(
        "--variants",
        action="store_true",
        help="8 GPUs with 3 processes each, by other settings too",
    )
    parser.add_argument("--spread", action="store_true", help="place the first entries")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with TemporaryDirectory() as folder:
        config = {"catalog": "imagenet-2023", "random_weights": True, "out": f"{folder}/out"}
        plan = make_plan(RunConfig.model_validate(config | {"compute": {"cache": Path(folder)}}))
        print(
            "| images/s | GPUs | "
            + " | ".join(f"{processes} a GPU" for processes in options.processes)
            + " |"
        )
        print("| ---: | ---: |" + " ---: |" * len(options.processes))
        for rate in options.rates:
            for gpus in options.gpus:
                cells = [
                    replay(plan, gpus, rate, processes, spread=options.spread)
                    for processes in options.processes
                ]
                cells_shown = " | ".join(map(str, cells))
                print(f"| {rate:,.0f} | {gpus} | {cells_shown} |", flush=True)
        for name, settings in VARIANTS.items() if options.variants else ():
            print(
                f"8 GPUs, 3 processes each, {name}: {replay(plan, 8, 8000, 3, settings)}",
                flush=True,
            )
        for ahead in (1, window.AHEAD, 4) if options.variants else ():
            window.AHEAD = ahead
            replayed = replay(plan, 8, 8000, 3)
            print(f"8 GPUs, 3 processes each, window of {ahead} a worker: {replayed}", flush=True)


if __name__ == "__main__":
    main()
