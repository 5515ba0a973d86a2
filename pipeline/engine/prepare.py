"""What an entry's row needs first: the subset of images, its view of them, and its weights."""

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from dsmi_zoo._util.files import damage
from dsmi_zoo.data_catalog.datasets.base import Part
from dsmi_zoo.data_catalog.datasets.subset import Subset

from ..config.run import RunConfig
from ..embedding.views import (
    ViewTooLarge,
    input_vector,
    make_view,
    open_view,
    part_view,
    view_vectors,
)
from ..measures import cluster_inputs
from ..plan.plan import Job
from ..store.run_folder import timeout_log
from ..store.subset_file import clusters_path, subset_is_stored, write_clusters, write_subset
from ..weights.cache import fetch_weights, remote_weights
from .time_limit import ModelClock


def prepare_subset(job: Job, config: RunConfig, subset: Subset) -> None:
    """Write ``OUT/subset.parquet``, unless it is there: the images, their labels, and the clusters of the inputs.

    The view of ``job`` is made in the same pass, so an image is decoded once for both.

    Raises
    ------
    InputError
        Names an image that cannot be decoded.
    """
    if subset_is_stored(config.folder, subset):
        return
    vectors: dict[int, np.ndarray] = {}

    def shrink(number: int, image: Image.Image) -> None:
        vectors[number] = input_vector(image)

    assert job.entry.img_size is not None
    with suppress(ViewTooLarge):  # which the rows of its entries will say; there may be others
        make_view(
            job.view,
            subset,
            job.entry.img_size,
            job.preprocessing,
            threads=os.cpu_count() or 1,
            also=shrink,
        )
    # All of them when the view was there.
    for number in set(range(len(subset.labels))) - set(vectors):
        shrink(number, subset.images.image(number))
    X = np.stack([vectors[number] for number in range(len(subset.labels))])
    table = subset.table()
    clusters = cluster_inputs(X, subset.n_classes, config.subset.seed)
    write_subset(config.folder, table.assign(input_cluster=clusters[table["number"]]))


def prepare_view(job: Job, config: RunConfig, subset: Subset) -> None:
    """Make the view that the entry needs; by the paper's protocol its crops are clustered too, as the inputs X."""
    assert job.entry.img_size is not None
    path = make_view(job.view, subset, job.entry.img_size, job.preprocessing)
    if config.protocol == "paper":
        clusters = clusters_path(config.folder, job.entry.img_size)
        if damage(clusters):
            vectors = view_vectors(open_view(path), job.preprocessing.mean, job.preprocessing.std)
            write_clusters(clusters, cluster_inputs(vectors, subset.n_classes, config.subset.seed))


def prepare_weights(job: Job, config: RunConfig) -> Path | None:
    """The file of the entry's weights, downloaded or trained unless the cache has it; None if it has no file."""
    published = remote_weights(job.entry)
    if published is not None:
        return fetch_weights(published, config.compute.cache, keep=config.compute.budget_gb is None)
    if job.entry.recipe is not None:
        return _trained_weights(job, config)
    return job.weights


def _trained_weights(job: Job, config: RunConfig) -> Path:
    """Train the entry's recipe, unless the cache has its weights; that is part of the model's own time."""
    assert job.weights is not None
    if not damage(job.weights):
        return job.weights
    training = import_module(
        "dsmi_zoo.pipeline.embedding.train"
    )  # torch and timm, before the clock begins
    with ModelClock(config.compute.model_timeout, timeout_log(config.folder, job.slug)).running():
        images, further = _training_part(job, config, "train"), _training_part(job, config, "test")
        weights: Path = training.train_weights(job.weights, job.entry, images, further)
    return weights


def _training_part(job: Job, config: RunConfig, part: Part) -> tuple[np.ndarray, np.ndarray]:
    entry = job.entry
    assert entry.recipe is not None
    assert entry.img_size is not None
    assert entry.preprocessing is not None
    trained_on, measured_on = entry.recipe.dataset, config.subset.dataset
    root = config.subset.data_root if trained_on == measured_on else None
    return part_view(
        config.compute.cache, trained_on, root, part, entry.img_size, entry.preprocessing
    )
