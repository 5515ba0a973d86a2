"""The forecast of a run before it starts: what it would compute, read and store, and how long it would take."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import psutil

from dsmi_zoo._util.forkserver import process_pool
from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.pipeline.config.compute import LOCAL_CLUSTERS, MODELS, ComputeSettings
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.cost import (
    BUILD_S,
    BYTES_A_PARAMETER,
    DECODE_S,
    DOWNLOAD_BYTES_S,
    EAGER,
    EAGER_RANGE,
    READ_BYTES_S,
    RESNET18_THROUGHPUT,
    TIMED,
    Cost,
    Speed,
    estimate,
    needs_timing,
    network_key,
    relative_cost,
    shared_by_layers,
    speed_here,
)
from dsmi_zoo.pipeline.plan.order import by_network
from dsmi_zoo.pipeline.plan.plan import Job, Plan
from dsmi_zoo.pipeline.weights.cache import local_weights, remote_weights

from ..clusters.machine import (
    chosen_gpus,
    default_per_gpu,
    default_workers,
    gpu_name,
    usable_cores,
    visible_gpus,
)
from ..clusters.profile import load_profile
from ..progress import SILENT, Display, duration
from ..terminal import print_line
from .downloads import own_columns_in_words, plan_run
from .state import EntryState, by_state, is_to_compute, record_of_same_run, states_of

log = logging.getLogger(__name__)

EMBEDDING_WIDTH = 1100  # typical of timm's models
START_S = 20.0  # a worker imports torch and timm
PROCESS_BYTES = 1.5e9  # memory of a worker with a small model
RESNET18_A_CORE = 10.0  # images of 224 pixels per second, float32; measured on one core of a server
# Factor on timm's published throughput, which is for bfloat16 on an RTX PRO 6000 Max-Q. The peak rates of float32,
# TF32 and the half formats there are as 1 to 2 to 4.
PRECISION_SHARE = {"fp32": 0.25, "tf32": 0.5, "bf16": 1.0, "fp16": 1.0}
ARRAYS_OF_SAMPLES = 6  # float64 [n, n], held at once by the measures


TIMING_S = 10.0  # limit for timing networks without a published speed; none is started after it
TIMING_SHARE = 0.05  # the largest part of a time budget for the same timing


@dataclass(frozen=True)
class Fleet:
    """The processes of a run, the GPUs that they share (0: they compute on cores), and both in words."""

    processes: int
    gpus: int
    words: str


@dataclass(frozen=True)
class Forecast:
    """Seconds of wall time and of its parts, and the most bytes that all processes hold at once."""

    total: float
    download: float
    forward: float
    others: float
    memory: float


def forecast(config: RunConfig, display: Display = SILENT, *, retry_failed: bool = False) -> int:
    """Print the plan of a run, or refuse it as the run itself would."""
    plan = plan_run(config, display, only_plan=True)
    record_of_same_run(plan)
    for line in plan_lines(plan, display, retry_failed=retry_failed):
        print_line(line)
    return 0


def plan_lines(plan: Plan, display: Display = SILENT, *, retry_failed: bool = False) -> list[str]:
    """Return the plan as lines of text, with one line per cost of what the run would compute."""
    states, _ = states_of(plan)
    todo = [
        job
        for job, state in zip(plan.jobs, states, strict=True)
        if is_to_compute(state, retry_failed)
    ]
    subset, config = plan.subset, plan.config
    crops = f" x {subset.repeats} random crops" if subset.repeats > 1 else ""
    architectures = {job.entry.architecture for job in plan.jobs}
    unknown = own_columns_in_words(plan)
    lines = [
        f"catalogue   {config.catalog}: {counted(len(plan.jobs), 'entry')} of "
        f"{counted(len(architectures), 'architecture')}; {_done(states, len(todo), config)}",
        *([f"  columns   {unknown}"] if unknown else []),
        f"images      {len(subset.labels)} of {subset.images.name} in {subset.n_classes} classes{crops}, "
        f"subset {subset.digest}",
        *_account_lines(subset),
    ]
    if not todo:
        return [*lines, "work        nothing to compute: the run only writes the report"]
    return [*lines, *_costs(Plan(config, subset, tuple(todo)), display)]


def _done(states: Sequence[EntryState], todo: int, config: RunConfig) -> str:
    """Return in words how many entries of a plan are done, failed and to be computed."""
    ok, failed, _ = by_state(states)
    not_reached = sum(state.was_not_reached for state in failed)
    parts = [f"{len(ok)} done in {config.folder}"]
    if failed:
        parts.append(f"{len(failed)} failed")
    parts.append(f"{todo} to compute")
    if not_reached:
        parts.append(f"{not_reached} of them not reached before")
    return ", ".join(parts)


def _costs(plan: Plan, display: Display) -> list[str]:
    """Return the costs of all jobs of a plan in words."""
    jobs, subset, config = plan.jobs, plan.subset, plan.config
    samples = len(subset.labels) * subset.repeats
    views = {job.view: job.entry.img_size or 0 for job in jobs}
    pixels = sum(samples * size * size * 3 for size in views.values())
    fleet = fleet_of(config.compute)
    speed = Speed(RESNET18_A_CORE, on_cpu=True)
    if fleet is not None:
        speed = speed_of(fleet, plan, display)
    to_decode = sum(not view.exists() for view in views)
    measures = Cost(build=0, image=0).seconds(samples) * len(jobs)
    embeddings = size_in_words(len(jobs) * samples * EMBEDDING_WIDTH * 4)
    dropped = "" if config.compute.keep_embeddings else ", not kept"
    networks = [group[0] for group in by_network(jobs)]
    building = len(networks) * BUILD_S + bytes_of_weights(networks) / READ_BYTES_S
    return [
        f"views       {counted(len(views), 'distinct preprocessing')}, {size_in_words(pixels)} on disk; cache limit "
        f"{config.compute.cache_gb:g} GB",
        f"weights     {'random' if config.random_weights else _weights(jobs)}",
        f"embeddings  about {embeddings}{dropped}",
        "work        estimates for one core unless said otherwise:",
        f"  build     {duration(building)}",
        f"  decoding  {duration(to_decode * samples * DECODE_S)}",
        f"  forward   {forward_time(plan, speed)}",
        f"  measures  {duration(measures)}",
        *_in_all(plan, fleet, speed, to_download(jobs, config.compute.cache)),
    ]


def _account_lines(subset: Subset) -> list[str]:
    """Return lines on the images that are left out, and on how ambiguous input was read."""
    account = subset.account
    lines = [f"  read as   {reading}" for reading in account.readings]
    if account.left_out:
        lines.insert(0, f"  account   {account.balance(len(subset.labels))}")
    return lines


def _weights(jobs: Sequence[Job]) -> str:
    """Return the sources of the weights in words."""
    trained = sum(job.entry.recipe is not None for job in jobs)
    downloaded = [job for job in jobs if remote_weights(job.entry) is not None]
    as_built = sum(job.weights is None for job in jobs) - len(downloaded)
    local = len(jobs) - trained - len(downloaded) - as_built
    files = list({remote_weights(job.entry): job for job in downloaded}.values())
    size = size_in_words(bytes_of_weights(files))
    unknown = sum(job.entry.params_m is None for job in files)
    if unknown:
        size += f" and {unknown} of unknown size"
    words = f"{local} local, {trained} to be trained, {len(downloaded)} of timm's ({size} in fp32 by their parameters)"
    return f"{words}, {as_built} as their builder makes them" if as_built else words


def forward_time(plan: Plan, speed: Speed) -> str:
    """Return in words the estimated time of all forward passes on one core or GPU, and its sources."""
    samples = len(plan.subset.labels) * plan.subset.repeats
    sources: Counter[str] = Counter()
    seconds = samples * sum(cost.image for cost in _job_costs(plan, speed))
    for job in plan.jobs:
        is_timed = network_key(job) in speed.networks
        source = TIMED if is_timed else relative_cost(job.entry, on_cpu=speed.on_cpu)[1]
        sources[source] += 1
    by = "; ".join(f"{number} by {source}" for source, number in sources.most_common())
    builders = sum(needs_timing(job) and job.entry.builder is not None for job in plan.jobs)
    if builders:
        by += f" (code of builders runs only in a run: {builders} unknown until then)"
    return f"{duration(seconds)}{_mode(plan.config, speed)}: {by}"


def _mode(config: RunConfig, speed: Speed) -> str:
    """Return in words whether networks run compiled; on a GPU, published figures are of compiled ones."""
    if speed.on_cpu:
        return ", compiled" if config.compute.compile else ""
    if config.compute.compile:
        return " on one GPU, compiled as published"
    low, high = EAGER_RANGE
    return f" on one GPU, eager: {EAGER:g} times as long as published ({low:g} to {high:g})"


def published_speed(fleet: Fleet, config: RunConfig) -> Speed:
    """Return the speed of one process of a fleet without measuring this machine."""
    if not fleet.gpus:
        return Speed(RESNET18_A_CORE, on_cpu=True)
    # The published figure is of the compiled network.
    rate = RESNET18_THROUGHPUT / EAGER * PRECISION_SHARE[config.precision]
    return Speed(rate, on_cpu=False)


def speed_of(fleet: Fleet, plan: Plan, display: Display, *, needs_resnet18: bool = False) -> Speed:
    """Return the speed of one process of a fleet.

    Networks of timm without a published speed are timed in a process on this machine, if the fleet runs here too.
    ResNet-18's speed comes from published figures, unless it is needed and can be measured here. On CPUs, speeds are
    those of one core.
    """
    config = plan.config
    published = published_speed(fleet, config)
    to_time = [job for job in plan.jobs if needs_timing(job) and job.entry.builder is None]
    is_here = config.compute.cluster in LOCAL_CLUSTERS
    if not is_here or not (to_time or needs_resnet18):
        return published
    known = None if needs_resnet18 else published.resnet18
    try:
        with (
            display.status("Measuring the speed of this machine"),
            process_pool(1, MODELS) as pool,
        ):
            call = pool.submit(speed_here, to_time, config.precision, TIMING_S, 1, known)
            speed = call.result()
    except BrokenProcessPool:
        log.warning("the process that was to time the networks died (out of memory?)")
        return published
    log_timed(to_time, speed.networks)
    return speed


def log_timed(jobs: Sequence[Job], rates: Mapping[str, float]) -> None:
    """Log how many networks without a published speed were timed."""
    networks = {network_key(job) for job in jobs}
    if networks:
        words = f"{len(rates)} of {counted(len(networks), 'network')} without a published speed timed: one batch each"
        log.info(words + ("" if len(rates) == len(networks) else "; the others are estimated"))


def _in_all(plan: Plan, fleet: Fleet | None, speed: Speed, download: float) -> list[str]:
    """Estimate wall time and memory on the chosen cluster."""
    if fleet is None:
        return [
            f"in all      unknown: {plan.config.compute.cluster} is not asked how many workers it has"
        ]
    expected = estimate_run(plan, fleet, download, speed)
    fetch = ""
    if download:
        fetch = f", {duration(expected.download)} of it to download {size_in_words(download)}"
    on = f"{fleet.words} with {counted(fleet.processes, 'process')}, {plan.config.precision}"
    return [
        f"in all      about {duration(expected.total)} on {on}{fetch}; may be off by a factor of two",
        f"memory      about {size_in_words(expected.memory)} at most, for all processes together",
    ]


def _estimate(job: Job, plan: Plan, speed: Speed) -> Cost:
    """Estimate the cost of a job on a process of that speed, eager or compiled as the run's settings say."""
    return estimate(
        job,
        speed.resnet18,
        on_cpu=speed.on_cpu,
        timed=speed.networks,
        compiled=plan.config.compute.compile,
    )


def to_download(jobs: Sequence[Job], cache: Path) -> float:
    """Estimate the bytes of the weights that the cache lacks from their parameters; no server is asked."""
    missing = {}
    for job in jobs:
        name = remote_weights(job.entry)
        if name is not None and local_weights(name, cache) is None:
            missing[name] = job
    return bytes_of_weights(list(missing.values()))


def bytes_of_weights(jobs: Sequence[Job]) -> float:
    """Return the bytes of fp32 weights, as far as the numbers of parameters are known."""
    return sum(1e6 * BYTES_A_PARAMETER * (job.entry.params_m or 0) for job in jobs)


def fleet_of(settings: ComputeSettings) -> Fleet | None:
    """Return the workers that a run would have; None for a scheduler that is already running.

    Raises
    ------
    InputError
        For a cluster that this machine cannot start.
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
    if settings.cluster in LOCAL_CLUSTERS:
        processes = settings.workers or default_workers(usable_cores())
        return Fleet(processes, 0, counted(usable_cores(), "core"))
    return None


def estimate_run(plan: Plan, fleet: Fleet, download: float, speed: Speed | None = None) -> Forecast:
    """Estimate how long the fleet would take for all of a plan's models, with ``download`` bytes of weights to fetch.

    Processes work in parallel; forward passes of those that share a GPU add up. The longest model is a lower bound.
    """
    samples = len(plan.subset.labels) * plan.subset.repeats
    if speed is None:
        speed = published_speed(fleet, plan.config)
    costs = _job_costs(plan, speed)
    views = {job.view for job in plan.jobs if not job.view.exists()}
    forward = sum(samples * cost.image for cost in costs)
    decoding = len(views) * samples * DECODE_S
    others = sum(cost.seconds(samples) - samples * cost.image for cost in costs) + decoding
    longest = max((cost.seconds(samples) for cost in costs), default=0.0)
    processes = max(1, min(fleet.processes, len(costs)))
    bounds = [(forward + others) / processes, longest]
    if fleet.gpus:
        bounds.append(forward / fleet.gpus)
    fetch = download / DOWNLOAD_BYTES_S
    # Each process holds one of the largest models, loaded and in its file, and the arrays of the measures.
    sizes = sorted((4e6 * (job.entry.params_m or 0) for job in plan.jobs), reverse=True)
    memory = processes * (PROCESS_BYTES + ARRAYS_OF_SAMPLES * 8 * samples**2)
    memory += 2 * sum(sizes[:processes])
    return Forecast(START_S + fetch + max(bounds), fetch, forward, others, memory)


def _job_costs(plan: Plan, speed: Speed) -> list[Cost]:
    """Estimate what each job costs at that speed."""
    return shared_by_layers(plan.jobs, (_estimate(job, plan, speed) for job in plan.jobs))


def expected_costs(plan: Plan, jobs: Sequence[Job]) -> dict[str, float]:
    """Return the seconds that each job would take on a core, by slug; only their ratios matter."""
    samples = len(plan.subset.labels) * plan.subset.repeats
    on_cpu = plan.config.compute.cluster in LOCAL_CLUSTERS and not visible_gpus()
    speed = Speed(RESNET18_A_CORE, on_cpu)
    costs = shared_by_layers(jobs, (_estimate(job, plan, speed) for job in jobs))
    return {job.slug: cost.seconds(samples) for job, cost in zip(jobs, costs, strict=True)}
