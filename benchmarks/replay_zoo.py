"""Utilisation of GPUs: a simulation of imagenet-2023 on a clock that jumps from one event to the next.

    python benchmarks/replay_zoo.py                                      every cell, 5 to 10 minutes
    python benchmarks/replay_zoo.py --gpus 1 8 --rates 8000 --processes 1 3 6 --variants

The catalogue's 1,002 models with their views, the order, the graph (keys, dependencies, priorities), the rolling
window, and Dask's scheduler, workers and client are real. A task sleeps for its expected time
(``pipeline/plan/cost.py``): a row builds its model, waits for its turn on the GPU, keeps it for the forward passes, and
measures; a view is decoded; weights are cached. There are 3,000 images; the measures take 10.3 s per row on the CPU (4
s with the scores of 0.1); a GPU has the stated ResNet-18 images per second, and other models scale by their published
throughputs.

Prints the total time over max(seconds of all forward passes / GPUs, longest entry), which no schedule can beat, and the
share of the time in which the GPUs compute. Not simulated: reading from a disk, and processes that slow each other
down.
"""

import virtual_clock  # before all that imports distributed  # isort: skip

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client, Future
from replayed_tasks import Times, begin, rest, row, worked_s

from dsmi_zoo.jobs.clusters.local import SCHEDULING
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.engine import window
from dsmi_zoo.pipeline.engine.graph import ZooGraph
from dsmi_zoo.pipeline.engine.window import Window
from dsmi_zoo.pipeline.plan.cost import DECODE_S, estimate, longest_first
from dsmi_zoo.pipeline.plan.plan import Job, Plan, make_plan

IMAGES = 3000
NONE: Mapping[str, Any] = {}
VARIANTS: dict[str, dict[str, Any]] = {
    "no work stealing": {"distributed.scheduler.work-stealing": False},
    "all that is submitted goes to the workers at once": {
        "distributed.scheduler.worker-saturation": "inf"
    },
}


class ReplayedGraph(ZooGraph):
    """The zoo's graph with tasks that sleep."""

    def __init__(self, client: Client, plan: Plan, times: dict[str, Times], processes: int) -> None:
        self._times, self._processes = times, processes
        super().__init__(client, plan, plan.jobs)

    def task(
        self, kind: str, name: str, identity: str, priority: int, function: Any, *arguments: Any
    ) -> Future:
        """Submit a sleeping task with the same key and dependencies."""
        needed = [argument for argument in arguments if isinstance(argument, Future)]
        if kind == "row":
            return super().task(
                kind,
                name,
                identity,
                priority,
                row,
                name,
                self._times[name],
                self._processes,
                *needed,
            )
        decoding = IMAGES * DECODE_S if kind == "view" else 0.0
        return super().task(kind, name, identity, priority, rest, decoding, *needed)


class Steady:
    """A cluster with a constant number of workers."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def count(self) -> int:
        """Return the number of workers."""
        return self._workers


def times_of(jobs: Sequence[Job], rate: float) -> dict[str, Times]:
    """Return the times of each entry on a GPU with this number of ResNet-18 images per second."""
    times = {}
    for job in jobs:
        cost = estimate(job, rate, untrained=False)
        forward = IMAGES * cost.image
        times[job.name] = Times(cost.build, forward, cost.seconds(IMAGES) - cost.build - forward)
    return times


def replay(
    plan: Plan, gpus: int, rate: float, processes: int, settings: Mapping[str, Any] = NONE
) -> tuple[float, float]:
    """Return the total time over the bound, and the share of it in which the GPUs compute."""
    times = times_of(plan.jobs, rate)
    begin()

    def drive(client: Client, queue: virtual_clock.WaitedFor) -> float:
        graph = ReplayedGraph(client, plan, times, processes)
        graph.subset.result()
        begun = time.time()
        rolling = Window(Steady(gpus * processes), graph, longest_first(plan.jobs, IMAGES))  # type: ignore[arg-type]
        rolling._ended = queue
        assert all(done.ok for _, done in rolling.outcomes())
        ended = time.time()
        graph.close()
        return ended - begun

    seconds = virtual_clock.with_cluster(gpus * processes, drive, SCHEDULING | dict(settings))
    forward = sum(entry.forward for entry in times.values())
    assert abs(worked_s() - forward) < 1
    bound = max(forward / gpus, max(entry.alone for entry in times.values()))
    return seconds / bound, forward / gpus / seconds


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
                cells = [replay(plan, gpus, rate, processes) for processes in options.processes]
                cells_shown = " | ".join(f"{ratio:.2f} ({busy:.0%})" for ratio, busy in cells)
                print(f"| {rate:,.0f} | {gpus} | {cells_shown} |", flush=True)
        for name, settings in VARIANTS.items() if options.variants else ():
            ratio, busy = replay(plan, 8, 8000, 3, settings)
            print(f"8 GPUs, 3 processes each, {name}: {ratio:.3f} ({busy:.1%})", flush=True)
        for ahead in (1, window.AHEAD, 4) if options.variants else ():
            window.AHEAD = ahead
            ratio, busy = replay(plan, 8, 8000, 3)
            print(
                f"8 GPUs, 3 processes each, window of {ahead} a worker: {ratio:.3f} ({busy:.1%})",
                flush=True,
            )


if __name__ == "__main__":
    main()
