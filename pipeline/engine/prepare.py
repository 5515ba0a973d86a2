"""The tasks that precede an entry's row: the subset of images, the entry's view of them, and its weights."""

import logging
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from dsmi_zoo._util.files import damage_problem
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

log = logging.getLogger(__name__)


def prepare_subset(job: Job, config: RunConfig, subset: Subset) -> None:
    """Write ``OUT/subset.parquet`` unless it exists: the images, their labels, and the clusters of the inputs.

    The view of ``job`` is made in the same pass, so an image is decoded once for both.

    Raises
    ------
    InputError
        If an image, which the message names, cannot be decoded.
    """
    if subset_is_stored(config.folder, subset):
        return
    vectors: dict[int, np.ndarray] = {}

    def shrink(number: int, image: Image.Image) -> None:
        vectors[number] = input_vector(image)

    size, threads = job.entry.img_size, os.cpu_count() or 1
    assert size is not None
    with suppress(ViewTooLarge):  # the rows of its entries will report it; other views may fit
        make_view(job.view, subset, size, job.preprocessing, threads=threads, also=shrink)
    for number in range(len(subset.labels)):
        if number not in vectors:  # the view existed already
            shrink(number, subset.images.image(number))
    X = np.stack([vectors[number] for number in range(len(subset.labels))])
    table = subset.table()
    clusters = _clusters(X, subset.n_classes, config.subset.seed)
    write_subset(config.folder, table.assign(input_cluster=clusters[table["number"]]))


def _clusters(X: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Cluster the inputs; return one cluster if too few are distinct, which leaves only the Z;X scores undefined."""
    try:
        return cluster_inputs(X, n_clusters, seed)
    except ValueError as error:
        log.warning(f"no clusters of the inputs, so no information about them: {error}")
        return np.zeros(len(X), dtype=np.int64)


def prepare_view(job: Job, config: RunConfig, subset: Subset, _after: object = None) -> None:
    """Make an entry's view; under the paper's protocol, also cluster its crops as the inputs X."""
    assert job.entry.img_size is not None
    path = make_view(job.view, subset, job.entry.img_size, job.preprocessing)
    if config.protocol == "paper":
        clusters = clusters_path(config.folder, job.entry.img_size)
        if damage_problem(clusters):
            vectors = view_vectors(open_view(path), job.preprocessing.mean, job.preprocessing.std)
            write_clusters(clusters, _clusters(vectors, subset.n_classes, config.subset.seed))


def prepare_weights(job: Job, config: RunConfig) -> Path | None:
    """Download or train an entry's weights unless cached; return their file, or None for an entry without a file."""
    published = remote_weights(job.entry)
    if published is not None:
        return fetch_weights(published, config.compute.cache, keep=config.compute.budget_gb is None)
    entry = job.entry
    if entry.recipe is None or job.weights is None or not damage_problem(job.weights):
        return job.weights
    # Loads torch and timm before the model's clock starts; training counts as the model's time.
    training = import_module("dsmi_zoo.pipeline.embedding.train")
    assert entry.img_size is not None
    assert entry.preprocessing is not None
    dataset, cache = entry.recipe.dataset, config.compute.cache
    root = config.subset.data_root if dataset == config.subset.dataset else None
    view = entry.img_size, entry.preprocessing
    with ModelClock(config.compute.model_timeout, timeout_log(config.folder, job.slug)).running():
        train = part_view(cache, dataset, root, "train", *view)
        test = part_view(cache, dataset, root, "test", *view)
        weights: Path = training.train_weights(job.weights, entry, train, test)
    return weights
