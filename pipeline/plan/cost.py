"""What an entry will cost, estimated before it runs and corrected by what was measured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from .plan import Job

# Measured on one core; they say what kind of cost to expect, not how long a given machine takes.
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
    """Of one entry on one worker.

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
        """Seconds on ``samples`` samples, download and view apart."""
        measures = MEASURE_FIXED_S + self.measures * (samples / MEASURE_N) ** MEASURE_POWER
        return self.build + samples * self.image + measures


def estimate(
    job: Job, resnet18_rate: float, download: int = 0, *, untrained: bool | None = None
) -> Cost:
    """The cost of an entry that has never run, from its catalogue's facts.

    Its speed is to ResNet-18's on this machine as their published throughputs are; without those, as their
    multiply-adds; and where even these are unknown, as if each parameter were used once for every 16 x 16 pixels, as
    in a vision transformer. A network of which nothing is known is taken for ResNet-18.

    Parameters
    ----------
    resnet18_rate
        Images a second, from `resnet18_rate`.
    untrained
        Whether a recipe has yet to be trained; None looks.
    """
    entry, parameters = job.entry, _parameters(job)
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
    recipe = entry.recipe
    if untrained is None:
        untrained = not _is_there(job)
    training = (
        BACKWARD * image * recipe.train_images * recipe.epochs if recipe and untrained else 0.0
    )
    build = BUILD_S + parameters * BYTES_A_PARAMETER / READ_BYTES_S + training
    return Cost(build=build, image=image, download=download)


def corrected(cost: Cost, row: Mapping[Any, Any]) -> Cost:
    """The cost as the entry's own row measured it; its weights are here by now.

    The measures cost every entry alike, and a worker's first ones pay for imports, which many times the samples must
    not multiply: their estimate stays.
    """
    return replace(
        cost, build=row["seconds_build"], image=row["seconds_embed"] / row["n_samples"], download=0
    )


def wall_seconds(
    jobs: Iterable[tuple[Job, Cost]], images: int, samples: int, workers: int
) -> float:
    """Seconds until ``workers`` workers have done all jobs: their shares, the views that are missing, the download."""
    jobs = list(jobs)
    views = {job.view for job, _ in jobs if not job.view.exists()}
    work = sum(cost.seconds(samples) for _, cost in jobs) + len(views) * images * DECODE_S
    longest = max((cost.seconds(samples) for _, cost in jobs), default=0.0)
    return max(work / workers, longest) + sum(cost.download for _, cost in jobs) / DOWNLOAD_BYTES_S


def affordable(
    jobs: Sequence[tuple[Job, Cost]], images: int, samples: int, workers: int, seconds: float
) -> list[tuple[Job, Cost]]:
    """The jobs, in the order given, up to the first that would take the time beyond ``seconds``."""
    low, high = 0, len(jobs)
    while low < high:  # bisection: time grows with every job
        middle = (low + high + 1) // 2
        if wall_seconds(jobs[:middle], images, samples, workers) <= seconds:
            low = middle
        else:
            high = middle - 1
    return list(jobs[:low])


def resnet18_rate() -> float:
    """Images of 224 pixels that ResNet-18 with random weights embeds in a second, here and now."""
    import timm
    import torch

    from ..networks.forward import default_batch
    from ..networks.timm import choose_device

    device = choose_device()
    model = timm.create_model("resnet18", pretrained=False).eval().to(device)
    images = torch.zeros(default_batch(device, 224 * 224), 3, 224, 224, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(3):  # the first one pays for what is done once
            started = perf_counter()
            model(images).sum().item()
            seconds.append(perf_counter() - started)
    return len(images) / min(seconds)


def _parameters(job: Job) -> float:
    if job.entry.params_m is not None:
        return 1e6 * job.entry.params_m
    if job.entry.checkpoint is not None:
        return job.entry.checkpoint.stat().st_size / BYTES_A_PARAMETER
    return 0.0


def _is_there(job: Job) -> bool:
    return job.weights is not None and job.weights.exists()
