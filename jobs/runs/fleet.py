"""What would compute a run: how many processes, on which GPUs or cores, and how long they would take for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.config.compute import OF_THIS_MACHINE, ComputeSettings
from dsmi_zoo.pipeline.plan.cost import DECODE_S, DOWNLOAD_BYTES_S, RESNET18_THROUGHPUT, estimate
from dsmi_zoo.pipeline.plan.plan import Job, Plan

from ..clusters.machine import (
    chosen_gpus,
    default_per_gpu,
    default_workers,
    gpu_name,
    usable_cores,
    visible_gpus,
)
from ..clusters.profile import load_profile

START_S = 20.0  # a worker imports torch and timm
PROCESS_BYTES = 1.5e9  # of those, with a small model
RESNET18_A_CORE = 10.0  # images of 224 pixels a second, float32; measured on one core of a server
# Of timm's published throughput, which is bfloat16, compiled, on an RTX PRO 6000 Max-Q. The peaks of that GPU's
# arithmetic stand as 1 to 2 to 4 for float32, TF32 and the half formats; nothing is compiled here.
PRECISION_SHARE = {"fp32": 0.2, "tf32": 0.4, "bf16": 0.8, "fp16": 0.8}
ARRAYS_OF_SAMPLES = 6  # float64 [n, n], which the measures hold at once


@dataclass(frozen=True)
class Fleet:
    """Processes that compute, the GPUs that they take turns on (0: they compute on cores), and both in words."""

    processes: int
    gpus: int
    words: str


@dataclass(frozen=True)
class Forecast:
    """Seconds of wall time, and of the parts that make it; bytes that all processes hold at once at most."""

    total: float
    download: float
    forward: float
    others: float
    memory: float


def fleet_of(settings: ComputeSettings) -> Fleet | None:
    """The workers that a run would have; None for a scheduler that somebody else has started.

    Raises
    ------
    InputError
        For a cluster that this machine cannot have.
    """
    if settings.cluster == "slurm":
        profile = load_profile(settings.profile)
        jobs = settings.workers or profile.workers
        gpus, processes = jobs * profile.gpus, jobs * profile.processes(settings.per_gpu)
        kind = f" ({profile.gres})" if profile.gres else ""
        each = f"{counted(jobs, 'job')} of Slurm"
        return Fleet(processes, gpus, f"{counted(gpus, 'GPU')}{kind} in {each}" if gpus else each)
    if settings.cluster == "cuda" or (settings.cluster == "auto" and visible_gpus()):
        gpus = len(chosen_gpus(settings.workers))
        per_gpu = settings.per_gpu or default_per_gpu(
            usable_cores(), gpus, psutil.virtual_memory().available
        )
        return Fleet(gpus * per_gpu, gpus, f"{counted(gpus, 'GPU')} ({gpu_name()})")
    if settings.cluster in OF_THIS_MACHINE:
        processes = settings.workers or default_workers(usable_cores())
        return Fleet(processes, 0, f"{counted(usable_cores(), 'core')}")
    return None


def estimated(plan: Plan, fleet: Fleet, download: float) -> Forecast:
    """How long the fleet would take for all of a plan's models, ``download`` bytes of weights included.

    Processes work side by side; those that share a GPU take turns on it, so that its forward passes add up. The longest
    model is a bound of its own.
    """
    images = len(plan.subset.labels)
    samples = images * plan.subset.repeats
    rate = RESNET18_A_CORE
    if fleet.gpus:
        rate = RESNET18_THROUGHPUT * PRECISION_SHARE[plan.config.precision]
    costs = [estimate(job, rate) for job in plan.jobs]
    views = {job.view for job in plan.jobs if not job.view.exists()}
    forward = sum(samples * cost.image for cost in costs)
    others = (
        sum(cost.seconds(samples) - samples * cost.image for cost in costs)
        + len(views) * samples * DECODE_S
    )
    longest = max((cost.seconds(samples) for cost in costs), default=0.0)
    processes = max(1, min(fleet.processes, len(costs)))
    bounds = [(forward + others) / processes, longest]
    if fleet.gpus:
        bounds.append(forward / fleet.gpus)
    fetch = download / DOWNLOAD_BYTES_S
    return Forecast(
        START_S + fetch + max(bounds), fetch, forward, others, _memory(plan, processes, samples)
    )


def expected_costs(plan: Plan, jobs: Sequence[Job]) -> dict[str, float]:
    """Seconds that each job would take on a core, by slug: how they compare is what counts."""
    samples = len(plan.subset.labels) * plan.subset.repeats
    return {job.slug: estimate(job, RESNET18_A_CORE).seconds(samples) for job in jobs}


def _memory(plan: Plan, processes: int, samples: int) -> float:
    """Bytes of all processes while each holds the largest model that there is for it, and the measures' arrays."""
    sizes = [4e6 * (job.entry.params_m or 0) for job in plan.jobs]
    sizes = sorted(sizes, reverse=True)[:processes]
    return processes * (PROCESS_BYTES + ARRAYS_OF_SAMPLES * 8 * samples**2) + 2 * sum(sizes)
