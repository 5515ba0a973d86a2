"""What a run would do, read and store, before it starts."""

from collections.abc import Sequence
from pathlib import Path

from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.cost import BUILD_S, BYTES_A_PARAMETER, DECODE_S, READ_BYTES_S, Cost
from dsmi_zoo.pipeline.plan.plan import Job, Plan, make_plan
from dsmi_zoo.pipeline.store.run_folder import row_path
from dsmi_zoo.pipeline.weights.cache import local_weights, remote_weights

from ..progress import SILENT, Display, duration
from ..terminal import tell
from .fleet import estimated, fleet_of
from .run import sizes_to_download, within_max_download

EMBEDDING_WIDTH = 1100  # a typical width of timm's models


def forecast(config: RunConfig, display: Display = SILENT) -> int:
    """Print the plan of a run."""
    with display.status("Reading catalogue and images"):
        plan = make_plan(config)
    if config.compute.max_download is not None:
        plan = within_max_download(plan, sizes_to_download(plan, display))
    for line in described(plan):
        tell(line)
    return 0


def described(plan: Plan) -> list[str]:
    """The plan in words, one line per cost."""
    jobs, subset, config = plan.jobs, plan.subset, plan.config
    samples = len(subset.labels) * subset.repeats
    repeated = f" x {subset.repeats} random crops" if subset.repeats > 1 else ""
    views = {job.view: job.entry.img_size or 0 for job in jobs}
    pixels = sum(samples * size * size * 3 for size in views.values())
    trained = [job for job in jobs if job.entry.recipe is not None]
    downloaded = [job for job in jobs if remote_weights(job.entry) is not None]
    files = {remote_weights(job.entry): job for job in downloaded}.values()
    as_built = sum(job.weights is None for job in jobs) - len(downloaded)
    architectures = {job.entry.architecture for job in jobs}
    done = sum(row_path(config.folder, job.slug).exists() for job in jobs)
    measures = Cost(build=0, image=0).seconds(samples) * len(jobs)
    weights = (
        f"{len(jobs) - len(trained) - len(downloaded) - as_built} local, {len(trained)} to be trained, "
        f"{len(downloaded)} of timm's ({weights_size(list(files))} in fp32 by their parameters)"
        + (f", {as_built} as their builder makes them" if as_built else "")
    )
    lines = [
        f"catalogue   {config.catalog}: {counted(len(jobs), 'entry')} of "
        f"{counted(len(architectures), 'architecture')}; {done} have a row in {config.folder}",
        f"images      {len(subset.labels)} of {subset.images.name} in {subset.n_classes} classes{repeated}, "
        f"subset {subset.digest}",
        f"views       {counted(len(views), 'distinct preprocessing')}, {size_in_words(pixels)} on disk; at most "
        f"{config.compute.cache_gb:g} GB stay once no model needs them",
        f"weights     {'random' if config.random_weights else weights}",
        f"embeddings  about {size_in_words(len(jobs) * samples * EMBEDDING_WIDTH * 4)}"
        + ("" if config.compute.keep_embeddings else ", not kept"),
        "work        estimates for one core unless said otherwise:",
        f"  build     {duration(len(jobs) * BUILD_S + weights_bytes(jobs) / READ_BYTES_S)}",
        f"  decoding  {duration(len(views) * len(subset.labels) * subset.repeats * DECODE_S)}",
        f"  forward   {forward_time(jobs, samples)}",
        f"  measures  {duration(measures)}",
        *in_all(plan, to_download(downloaded, config.compute.cache)),
    ]
    return lines


def in_all(plan: Plan, download: float) -> list[str]:
    """Wall time and memory on the cluster that is asked for."""
    fleet = fleet_of(plan.config.compute)
    if fleet is None:
        return [
            f"in all      unknown: {plan.config.compute.cluster} is not asked how many workers it has"
        ]
    expected = estimated(plan, fleet, download)
    fetch = (
        f", {duration(expected.download)} of it to download {size_in_words(download)}"
        if download
        else ""
    )
    on = f"{fleet.words} with {counted(fleet.processes, 'process')}, {plan.config.precision}"
    return [
        f"in all      about {duration(expected.total)} on {on}{fetch}; half or twice as long is no surprise",
        f"memory      about {size_in_words(expected.memory)} at the most, by all processes together",
    ]


def to_download(jobs: Sequence[Job], cache: Path) -> float:
    """Bytes of the weights that the cache lacks, by their parameters; no server is asked."""
    lacking = {
        name: job
        for job in jobs
        if (name := remote_weights(job.entry)) and local_weights(name, cache) is None
    }
    return weights_bytes(list(lacking.values()))


def forward_time(jobs: Sequence[Job], samples: int) -> str:
    """Time of the forward passes by the published throughput of one GPU, where the catalogue has it."""
    known = [rate for job in jobs if (rate := job.entry.extras.get("throughput"))]
    if not known:
        return "unknown: the catalogue has no throughput"
    seconds = sum(samples / rate for rate in known) * len(jobs) / len(known)
    return f"{duration(seconds)} on one GPU of timm's published throughput (known for {len(known)} of {len(jobs)})"


def weights_bytes(jobs: Sequence[Job]) -> float:
    """Bytes of fp32 weights, as far as the parameters are known."""
    return sum(1e6 * BYTES_A_PARAMETER * (job.entry.params_m or 0) for job in jobs)


def weights_size(jobs: Sequence[Job]) -> str:
    """The same in words."""
    unknown = sum(job.entry.params_m is None for job in jobs)
    return size_in_words(weights_bytes(jobs)) + (
        f" and {unknown} of unknown size" if unknown else ""
    )
