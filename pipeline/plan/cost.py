"""The cost of an entry, estimated before it runs and corrected by its own row."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from time import perf_counter
from typing import Any

from dsmi_zoo._util.files import content_hash
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from .plan import Job

log = logging.getLogger(__name__)

# Measured on one core; they give proportions, not the time on a given machine.
DECODE_S = 0.009  # a JPEG of ImageNet's size, decoded and cropped
BUILD_S = 1.3  # a model without its weights
READ_BYTES_S = 500e6  # weights from a local disk
DOWNLOAD_BYTES_S = 30e6
MEASURE_FIXED_S = 0.9
MEASURE_S, MEASURE_N = 4.0, 2000  # all scores of 2,000 samples in 768 dimensions
MEASURE_POWER = 2.1  # between the distances' n squared and the eigenvalues' n cubed
ENOUGH_S, GROWTH = 2.0, 4  # a timed batch on a CPU grows fourfold until a pass takes that long
BACKWARD = 3  # a training step, in forward passes
BYTES_A_PARAMETER = 4
RESNET18_GMACS, RESNET18_THROUGHPUT = 1.82, 35806.38  # timm's published figures at 224 pixels
RESNET18_CPU_THROUGHPUT = 62.22  # timm's, at 224 pixels in float32 on an Intel i7-12700H
EAGER = 1.69
"""Time of an eager network over that of a compiled one, in the median of 1,627 pairs of timm's own tables."""
EAGER_RANGE = (1.25, 2.24)  # of the same pairs, on a GPU
CPU_EAGER = 1.3  # on a core, 1.1 to 1.5: docs/speed.md
COMPILE_S = 30.0  # to compile a network
TYPICAL_SHARE = 0.63  # of ResNet-18's multiply-adds per second; the median of imagenet-2025


@dataclass(frozen=True)
class Cost:
    """The cost of one entry on one worker.

    Attributes
    ----------
    build : float
        Seconds to build the model, read its weights and train it if need be.
    image : float
        Seconds of the forward pass per image.
    measures : float
        Seconds of the measures at ``MEASURE_N`` samples.
    download : int
        Bytes to download.
    """

    build: float
    image: float
    measures: float = MEASURE_S
    download: int = 0

    def seconds(self, samples: int) -> float:
        """Return the seconds for ``samples`` samples, without download and view."""
        measures = MEASURE_FIXED_S + self.measures * (samples / MEASURE_N) ** MEASURE_POWER
        return self.build + samples * self.image + measures


def relative_cost(entry: ModelEntry, *, on_cpu: bool) -> tuple[float, str]:
    """Return an entry's time per image in units of ResNet-18's at 224 pixels, and the source of the figure."""
    pixels = (entry.img_size or 224) ** 2
    throughput, cpu_throughput = map(entry.extras.get, ("throughput", "cpu_throughput"))
    if on_cpu and cpu_throughput:
        return RESNET18_CPU_THROUGHPUT / cpu_throughput, OF_A_CPU
    if throughput:
        return RESNET18_THROUGHPUT / throughput, OF_A_GPU
    of_resnet18 = RESNET18_GMACS * TYPICAL_SHARE
    gmacs = entry.extras.get("gmacs")
    if gmacs:
        return gmacs / of_resnet18, "multiply-adds"
    parameters = _parameters(entry)
    if parameters:
        return parameters * pixels / 256 / 1e9 / of_resnet18, "parameters"
    return pixels / 224**2 / TYPICAL_SHARE, "nothing, so as ResNet-18"


OF_A_CPU = "timm's published CPU throughput (float32, compiled, Intel i7-12700H)"
OF_A_GPU = "timm's published GPU throughput (bfloat16, compiled, RTX PRO 6000 Max-Q)"
TIMED = "one batch timed on this machine"


def _parameters(entry: ModelEntry) -> float:
    """Return the number of parameters, from the size of the entry's checkpoint if necessary; 0 if unknown."""
    if entry.params_m is None and entry.checkpoint is not None:
        return entry.checkpoint.stat().st_size / BYTES_A_PARAMETER
    return 1e6 * (entry.params_m or 0)


def network_key(job: Job) -> str:
    """Return a key that jobs with equally fast networks share."""
    entry = job.entry
    return content_hash(
        entry.architecture, entry.model_kwargs, entry.img_size, entry.builder, entry.layer
    )


def needs_timing(job: Job) -> bool:
    """Return whether no published figure says how fast a network is, and no recipe trains it."""
    published = {"throughput", "cpu_throughput", "gmacs"}
    return job.entry.recipe is None and not any(map(job.entry.extras.get, published))


def estimate(
    job: Job,
    resnet18_rate: float,
    download: int = 0,
    *,
    untrained: bool | None = None,
    on_cpu: bool = False,
    timed: Mapping[str, float] | None = None,
    compiled: bool = False,
) -> Cost:
    """Estimate the cost of an entry that has never run, from one batch of it or the facts in its catalogue.

    Without a timed batch, its speed relative to ResNet-18's on this machine is that of their published throughputs or,
    without those, of their multiply-adds. If these are unknown too, each parameter counts once for every 16 x 16
    pixels, as in a vision transformer; a network without any facts counts as ResNet-18.

    Parameters
    ----------
    resnet18_rate
        Images per second of the eager network, from `resnet18_rate`.
    untrained
        Whether a recipe must still be trained; None looks for its weights on disk.
    on_cpu
        Whether published figures of a CPU fit better than those of a GPU.
    timed
        Images per second of networks, from `network_rates`.
    compiled
        Whether the network is compiled; both rates are those of eager networks.
    """
    entry, recipe = job.entry, job.entry.recipe
    parameters = _parameters(entry)
    rate = timed.get(network_key(job)) if timed else None
    image = 1 / rate if rate else relative_cost(entry, on_cpu=on_cpu)[0] / resnet18_rate
    build = BUILD_S + parameters * BYTES_A_PARAMETER / READ_BYTES_S
    training = BACKWARD * image
    if compiled:
        image /= CPU_EAGER if on_cpu else EAGER
        build += COMPILE_S
    if untrained is None:
        untrained = job.weights is None or not job.weights.exists()
    if recipe and untrained:
        build += training * recipe.train_images * recipe.epochs
    return Cost(build=build, image=image, download=download)


def corrected(cost: Cost, row: Mapping[Any, Any]) -> Cost:
    """Return the cost as the entry's own row measured it; its weights are in the cache by now.

    The estimate for the measures stays: they cost every entry alike, and a worker's first ones include imports, which
    do not grow with the number of samples.
    """
    return replace(
        cost, build=row["seconds_build"], image=row["seconds_embed"] / row["n_samples"], download=0
    )


def shared_by_layers(jobs: Sequence[Job], costs: Iterable[Cost]) -> list[Cost]:
    """Return the costs with each network's building and forward pass spread over its layers among the jobs."""
    sharing = Counter(job.network for job in jobs)
    shared = []
    for job, cost in zip(jobs, costs, strict=True):
        layers = sharing[job.network]
        shared.append(replace(cost, build=cost.build / layers, image=cost.image / layers))
    return shared


def wall_seconds(
    jobs: Iterable[tuple[Job, Cost]], images: int, samples: int, workers: int
) -> float:
    """Return the seconds in which ``workers`` workers do all jobs, with missing views and downloads."""
    jobs = list(jobs)
    views = {job.view for job, _ in jobs if not job.view.exists()}
    work = sum(cost.seconds(samples) for _, cost in jobs) + len(views) * images * DECODE_S
    longest = max((cost.seconds(samples) for _, cost in jobs), default=0.0)
    return max(work / workers, longest) + sum(cost.download for _, cost in jobs) / DOWNLOAD_BYTES_S


def affordable(
    jobs: Sequence[tuple[Job, Cost]], images: int, samples: int, workers: int, seconds: float
) -> list[tuple[Job, Cost]]:
    """Return the jobs, in the given order, that fit in ``seconds``."""
    low, high = 0, len(jobs)
    while low < high:  # bisection: time grows with every job
        middle = (low + high + 1) // 2
        if wall_seconds(jobs[:middle], images, samples, workers) <= seconds:
            low = middle
        else:
            high = middle - 1
    return list(jobs[:low])


def resnet18_rate() -> float:
    """Measure how many images of 224 pixels ResNet-18 with random weights embeds per second."""
    import timm
    import torch

    from ..networks.forward import default_batch
    from ..networks.timm import choose_device

    device = choose_device()
    model = timm.create_model("resnet18", pretrained=False).eval().to(device)
    images = torch.zeros(default_batch(device, 224 * 224), 3, 224, 224, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(3):  # the first one includes one-off set-up
            started = perf_counter()
            model(images).sum().item()
            seconds.append(perf_counter() - started)
    return len(images) / min(seconds)


@dataclass(frozen=True)
class Speed:
    """Speed of one process in images per second, for ResNet-18 and for networks by `network_key`, and its device."""

    resnet18: float
    on_cpu: bool
    networks: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def mean(cls, speeds: Sequence["Speed"]) -> "Speed":
        """Return the mean speed of several processes."""
        of_network: dict[str, list[float]] = {}
        for speed in speeds:
            for key, rate in speed.networks.items():
                of_network.setdefault(key, []).append(rate)
        networks = {key: fmean(rates) for key, rates in of_network.items()}
        return cls(fmean(speed.resnet18 for speed in speeds), speeds[0].on_cpu, networks)


def speed_here(
    jobs: Sequence[Job],
    precision: str,
    seconds: float,
    threads: int | None = None,
    resnet18: float | None = None,
) -> Speed:
    """Measure the speed of this process: one batch of each network of ``jobs``, and ResNet-18 unless its rate is known.

    Parameters
    ----------
    seconds
        Time limit, after which no further network is started.
    threads
        Threads of torch on a CPU; None leaves them unchanged.
    resnet18
        Images per second of ResNet-18, if known.
    """
    import torch

    from ..networks.timm import choose_device

    if threads is not None:
        torch.set_num_threads(threads)
    rates = network_rates(jobs, precision, seconds)
    on_cpu = choose_device().type == "cpu"
    return Speed(resnet18 or resnet18_rate(), on_cpu, rates)


def network_rates(jobs: Sequence[Job], precision: str, seconds: float) -> dict[str, float]:
    """Time one batch of each network on this machine, and start none after ``seconds``.

    Weights do not matter for speed: timm's networks have random ones. A network that cannot be built is left out; its
    row will say why.

    Returns
    -------
    dict
        Images per second by `network_key`.
    """
    from ..networks.timm import choose_device

    device, end = choose_device(), perf_counter() + seconds
    rates: dict[str, float] = {}
    for job in {network_key(job): job for job in jobs}.values():
        left = end - perf_counter()
        if left <= 0:
            break
        try:
            rates[network_key(job)] = _network_rate(job, precision, device, left)
        except Exception as error:
            log.debug("%s cannot be timed: %s", job.entry, error)
    return rates


def _network_rate(job: Job, precision: str, device: Any, seconds: float) -> float:
    """Return the images per second of one batch, or of a part of it that takes long enough for a figure."""
    import torch

    from ..embedding.embed import embed_inputs
    from ..networks.custom import build
    from ..networks.forward import TensorInputs, default_batch, defaults_kept
    from ..networks.timm import build_untrained

    entry, size = job.entry, job.entry.img_size or 224
    with defaults_kept():
        if entry.builder is None:
            network = build_untrained(entry)
        else:
            network = build(entry, job.builder_sha256, None).model
        batch = default_batch(device, size * size)
        images = torch.rand(batch, 3, size, size)

        def timed(count: int) -> float:
            started = perf_counter()
            embed_inputs(
                network,
                TensorInputs(images[:count]),
                device,
                layer=entry.layer,
                batch_size=count,
                precision=precision,
            )
            return perf_counter() - started

        if device.type != "cpu":
            timed(batch)  # chooses kernels for this size
            return batch / timed(batch)
        timed(1)  # one-off set-up
        count = 1
        while True:
            taken = min(timed(count), timed(count))  # another process may have interrupted one
            if count == batch or taken > ENOUGH_S or GROWTH * taken > seconds:
                return count / taken
            count = min(batch, GROWTH * count)
