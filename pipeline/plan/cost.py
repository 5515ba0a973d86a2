"""The cost of an entry, estimated before it runs and corrected by its own row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from .plan import Job

# Measured on one core; they give proportions, not the time on a given machine.
DECODE_S = 0.009  # a JPEG of ImageNet's size, decoded and cropped
BUILD_S = 1.3  # a model without its weights
READ_BYTES_S = 500e6  # weights from a local disk
DOWNLOAD_BYTES_S = 30e6
MEASURE_FIXED_S = 0.9
MEASURE_S, MEASURE_N = 4.0, 2000  # all scores of 2,000 samples in 768 dimensions
MEASURE_POWER = 2.1  # between the distances' n squared and the eigenvalues' n cubed
BACKWARD = 3  # a training step, in forward passes
BYTES_A_PARAMETER = 4
RESNET18_GMACS, RESNET18_THROUGHPUT = 1.82, 35806.38  # timm's published figures at 224 pixels
TYPICAL_SHARE = 0.63  # of ResNet-18's multiply-adds per second; the median of imagenet-2025


@dataclass(frozen=True)
class Cost:
    """The cost of one entry on one worker.

    Attributes
    ----------
    build : float
        Seconds to build the model, read its weights and train it if need be.
    image : float
        Seconds of the forward pass, for each image.
    measures : float
        Seconds of the measures at ``MEASURE_N`` samples.
    download : int
        Bytes.
    """

    build: float
    image: float
    measures: float = MEASURE_S
    download: int = 0

    def seconds(self, samples: int) -> float:
        """Return the seconds on ``samples`` samples, without download and view."""
        measures = MEASURE_FIXED_S + self.measures * (samples / MEASURE_N) ** MEASURE_POWER
        return self.build + samples * self.image + measures


def estimate(
    job: Job, resnet18_rate: float, download: int = 0, *, untrained: bool | None = None
) -> Cost:
    """Estimate the cost of an entry that has never run, from the facts in its catalogue.

    Its speed relative to ResNet-18's on this machine is that of their published throughputs or, without those, of
    their multiply-adds. If these are unknown too, each parameter counts once for every 16 x 16 pixels, as in a vision
    transformer; a network without any facts counts as ResNet-18.

    Parameters
    ----------
    resnet18_rate
        Images per second, from `resnet18_rate`.
    untrained
        Whether a recipe must still be trained; None looks for its weights on disk.
    """
    entry, recipe = job.entry, job.entry.recipe
    parameters = 1e6 * (entry.params_m or 0)
    if entry.params_m is None and entry.checkpoint is not None:
        parameters = entry.checkpoint.stat().st_size / BYTES_A_PARAMETER
    throughput = entry.extras.get("throughput")
    if throughput:
        slower = RESNET18_THROUGHPUT / throughput
    else:
        pixels = (entry.img_size or 224) ** 2
        gmacs = (
            entry.extras.get("gmacs")
            or parameters * pixels / 256 / 1e9
            or RESNET18_GMACS * pixels / 224**2
        )
        slower = gmacs / RESNET18_GMACS / TYPICAL_SHARE
    image = slower / resnet18_rate
    build = BUILD_S + parameters * BYTES_A_PARAMETER / READ_BYTES_S
    if untrained is None:
        untrained = job.weights is None or not job.weights.exists()
    if recipe and untrained:
        build += BACKWARD * image * recipe.train_images * recipe.epochs
    return Cost(build=build, image=image, download=download)


def corrected(cost: Cost, row: Mapping[Any, Any]) -> Cost:
    """Return the cost as the entry's own row measured it; its weights are in the cache by now.

    The estimate for the measures stays: they cost every entry alike, and a worker's first ones include imports, which
    do not grow with the number of samples.
    """
    return replace(
        cost, build=row["seconds_build"], image=row["seconds_embed"] / row["n_samples"], download=0
    )


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
