"""The plan of a search on a time budget: its stages, what they cost, and which models come first."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.pipeline.plan.cost import (
    Cost,
    affordable,
    corrected,
    estimate,
    resnet18_rate,
    wall_seconds,
)
from dsmi_zoo.pipeline.plan.order import by_promise
from dsmi_zoo.pipeline.plan.plan import Job, Plan
from dsmi_zoo.pipeline.weights.cache import remote_weights

from ..progress import Display, duration

if TYPE_CHECKING:
    from dsmi_zoo.pipeline.engine.workers import Workers


SHRINK = 3
CAUTION = 1.5  # safety factor on another device's published throughput
MIN_IMAGES_PER_CLASS = 5  # images per class; with fewer, accuracies are mostly noise


@dataclass(frozen=True)
class Stage:
    """One pass over the models that are left; ``images_per_class`` None means the run's own images."""

    images_per_class: int | None
    images: int


def stages_of(subset: Subset) -> list[Stage]:
    """Return the stages up to all images of ``subset``; each has a third of the images of the next one."""
    _, smallest = rarest_class(subset)
    stages = [Stage(None, len(subset.labels))]
    while smallest // SHRINK >= MIN_IMAGES_PER_CLASS:
        smallest //= SHRINK
        stages.insert(0, Stage(smallest, smallest * subset.n_classes))
    return stages


def rarest_class(subset: Subset) -> tuple[int, int]:
    """Return the class with the fewest images, and their number."""
    labels, counts = np.unique(subset.labels, return_counts=True)
    return int(labels[counts.argmin()]), int(counts.min())


def row_key(job: Job) -> tuple[str, int | None]:
    """Return the model and image size of an entry's row."""
    return job.entry.model, job.entry.img_size


@dataclass(frozen=True)
class Prices:
    """What each entry costs on these workers, by slug."""

    costs: Mapping[str, Cost]
    workers: int
    repeats: int

    @classmethod
    def measured(
        cls, workers: "Workers", plan: Plan, sizes: Mapping[str, int | None], display: Display
    ) -> "Prices":
        """Derive prices from ResNet-18's speed on the workers, timm's published figures and the files to download."""
        with display.status("Measuring the speed of this machine"):
            workers.ask(os.getpid)  # a cluster may start its workers only when there is a task
            rates = list(workers.client.run(resnet18_rate).values())
        rate = sum(rates) / len(rates)
        costs = {}
        for job in plan.jobs:
            download = sizes.get(remote_weights(job.entry) or "") or 0
            costs[job.slug] = estimate(job, rate, download)
        return cls(costs, workers.count(), plan.config.repeats)

    def seconds(self, jobs: Sequence[Job], images: int) -> float:
        """Return the time until all are done."""
        return wall_seconds(self._of(jobs), images, images * self.repeats, self.workers)

    def affordable(self, jobs: Sequence[Job], images: int, seconds: float) -> list[Job]:
        """Return as many of the first jobs as can be done in ``seconds``, but at least one."""
        priced = affordable(self._of(jobs), images, images * self.repeats, self.workers, seconds)
        return [job for job, _ in priced] or list(jobs[:1])

    def download(self, jobs: Sequence[Job]) -> int:
        """Return the bytes to download; weights that entries share count once."""
        by_file = {remote_weights(job.entry): self.costs[job.slug].download for job in jobs}
        return sum(by_file.values())

    def corrected(self, rows: pd.DataFrame, jobs: Sequence[Job]) -> "Prices":
        """Return the prices corrected by what the rows measured."""
        ok = rows[rows["status"] == "ok"].to_dict("records")
        row_of = {(row["model"], row["img_size"]): row for row in ok}
        costs = dict(self.costs)
        for job in jobs:
            row = row_of.get(row_key(job))
            if row is not None:
                costs[job.slug] = corrected(costs[job.slug], row)
        return replace(self, costs=costs)

    def _of(self, jobs: Sequence[Job]) -> list[tuple[Job, Cost]]:
        return [(job, self.costs[job.slug]) for job in jobs]


def stages_and_order(plan: Plan, prices: Prices, seconds: float) -> tuple[list[Stage], list[Job]]:
    """Return the stages, a single one if time allows, and the models, the most promising first."""
    stages = stages_of(plan.subset)
    on_all_images = stages[-1].images
    costs = [prices.seconds([job], on_all_images) for job in plan.jobs]
    order = by_promise(costs, [job.entry.top1 for job in plan.jobs])
    jobs = [plan.jobs[i] for i in order]
    goes_on = (plan.config.folder / "stages").exists()
    if not goes_on and CAUTION * prices.seconds(jobs, on_all_images) <= seconds:
        return stages[-1:], jobs
    return stages, jobs


def announced(
    plan: Plan, jobs: Sequence[Job], stages: Sequence[Stage], prices: Prices, seconds: float
) -> Iterator[str]:
    """Say what the search will do, line by line."""
    first, *later = stages
    budget = plan.config.compute.budget or 0
    fit = prices.affordable(jobs, first.images, seconds / len(stages))
    order = "the cheapest"
    if any(job.entry.top1 is not None for job in jobs):
        order = "those that no cheaper one beats in published top-1"
    needed = duration(prices.seconds(fit, first.images))
    download = size_in_words(prices.download(fit))
    yield (
        f"budget {duration(budget)}: first {counted(len(jobs), 'model')} on {first.images} images, {order} first; "
        f"about {len(fit)} fit, in about {needed}, with {download} to download, "
        f"plus {duration(max(budget - seconds, 0))} start-up"
    )
    if later:
        numbers = ", then ".join(str(stage.images) for stage in later)
        yield f"after that, without those that are clearly worse and as time allows, on {numbers} images"
    elif len(fit) < len(jobs):
        _, smallest = rarest_class(plan.subset)
        enough = SHRINK * MIN_IMAGES_PER_CLASS
        yield f"on all images at once: the smallest class has {smallest}; stages need {enough} images per class"


def refuse_single_images(subset: Subset) -> None:
    """Raise InputError for a class of one image: a probe is tested on an image that it was not trained on."""
    rarest, images = rarest_class(subset)
    if images < 2:
        name = subset.images.class_names.get(rarest, rarest)
        raise InputError(
            f"class {name} has {images} image; a search ranks by a probe, which needs 2 of every class"
        )
