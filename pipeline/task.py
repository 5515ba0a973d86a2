"""What one Dask task does: an entry becomes a row, whatever happens to it on the way."""

import faulthandler
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from ..data_catalog.entries import ModelEntry
from ..data_catalog.errors import DamagedFile, DiskFull, InputError
from ..data_catalog.images import LabelledImages, Part
from ..data_catalog.subset import Subset
from .config import MeasureSettings, RunConfig
from .measures import cluster_inputs
from .measures.context import MeasureContext
from .measures.estimate import method_for, precision_for
from .measures.own import load_measure
from .measures.registry import BY_NAME, OF_A_ROW, values_of
from .plan import Job, measures_identity, row_identity
from .provenance import library_versions
from .schema import COLUMNS
from .sealed import damage
from .store import (
    array_sha256,
    read_embedding,
    read_row,
    row_mark,
    timeout_log,
    write_embedding,
    write_row,
)
from .stored_subset import (
    clusters_path,
    subset_is_stored,
    subset_with_clusters,
    write_clusters,
    write_subset,
)
from .users_modules import NOT_AS_PLANNED
from .views import ViewTooLarge, input_vector, make_view, open_view, part_view, view_vectors
from .weights import fetch_weights, remote_weights

if TYPE_CHECKING:
    import torch

    from .embed import Embedding, Inputs


@dataclass(frozen=True)
class Done:
    """What the driver hears of a finished entry; the row itself is on disk.

    ``stages`` are the seconds until the model was built, of its forward passes and of its measures.
    """

    slug: str
    name: str
    ok: bool
    message: str
    seconds: float
    stages: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class RemeasureJob:
    """One kept embedding that is measured anew: the source's row, and where its embedding stands."""

    source: dict[str, Any]
    slug: str
    row_id: str
    embedding: Path

    @property
    def name(self) -> str:
        """The entry's name."""
        return f"{self.source['model']}@{self.source['img_size']}"

    @property
    def order(self) -> float:
        """Sorts the widest embeddings first."""
        return -float(self.source["embedding_dim"])


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
        make_view(job.view, subset, job.entry.img_size, job.preprocessing, threads=os.cpu_count() or 1, also=shrink)
    for number in set(range(len(subset.labels))) - set(vectors):  # all of them when the view was there
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


def fetched_weights(job: Job, config: RunConfig) -> Path | None:
    """The file of the entry's published weights, downloaded unless the cache has it; None if it has none."""
    published = remote_weights(job.entry)
    if published is None:
        return None
    return fetch_weights(published, config.compute.cache, keep=config.compute.budget_gb is None)


def own_weights(job: Job, config: RunConfig) -> Path | None:
    """The file of weights that are not published: a checkpoint, or what a recipe was trained to; None if there is none.

    A recipe is trained unless the cache has its weights.
    """
    if job.entry.recipe is None:
        return job.weights
    assert job.weights is not None
    if not damage(job.weights):
        return job.weights
    from .train import train_weights

    return train_weights(
        job.weights, job.entry, _training_part(job, config, "train"), _training_part(job, config, "test")
    )


def _training_part(job: Job, config: RunConfig, part: Part) -> tuple[np.ndarray, np.ndarray]:
    entry = job.entry
    assert entry.recipe is not None
    assert entry.img_size is not None
    assert entry.preprocessing is not None
    return part_view(config.compute.cache, entry.recipe.dataset, None, part, entry.img_size, entry.preprocessing)


def compute_row(
    job: Job,
    config: RunConfig,
    subset_digest: str,
    classifier_width: int | None,
    images: LabelledImages | None = None,
) -> Done:
    """Fetch or train an entry's weights, embed and measure it, and write its row; subset and view are there.

    Parameters
    ----------
    images
        The subset's, for a network whose builder brings its own transform; other entries need the view only.
    """

    def fill(row: dict[str, Any]) -> None:
        published = fetched_weights(job, config)
        import_module(".zoo", __package__)  # torch and timm, before the model's own time begins
        with _ended_after(config.compute.model_timeout, config.folder, job.slug):
            weights = published or own_weights(job, config)
            _embed_and_measure(row, job, config, classifier_width, weights, images)

    return _finished(config.folder, job.slug, job.name, _begun(job, config, subset_digest), fill)


def _embed_and_measure(
    row: dict[str, Any],
    job: Job,
    config: RunConfig,
    classifier_width: int | None,
    weights: Path | None,
    images: LabelledImages | None,
) -> None:
    """Fill the entry's row, and keep its embedding if that is wanted."""
    from .activations import defaults_kept
    from .train import stored_top1

    with defaults_kept():  # a network's own code may change them, and the next model would suffer
        embedding = _embedded(row, job, config, weights, images)
    _refuse_changed(job)
    if job.entry.recipe is not None and job.weights is not None:
        row["top1"] = stored_top1(job.weights)
    subset = subset_with_clusters(config.folder, job.entry.img_size)
    if embedding.predictions is not None and embedding.n_logits == classifier_width:
        row["subset_top1"] = 100 * float(np.mean(embedding.predictions == subset["label"].to_numpy()))
    row["embedding_sha256"] = array_sha256(embedding.values)
    measure_row(row, embedding.values, subset, config.measures)
    if config.compute.keep_embeddings:
        write_embedding(config.folder, job.slug, embedding.values)


def _refuse_changed(job: Job) -> None:
    """Raise DamagedFile if what the embedding was computed from was damaged after it had been looked at."""
    trained = [job.weights] if job.entry.recipe is not None and job.weights is not None else []
    for path in (job.view, *trained):
        problem = damage(path)
        if problem:
            raise DamagedFile(path, problem)


def _embedded(
    row: dict[str, Any], job: Job, config: RunConfig, weights: Path | None, images: LabelledImages | None
) -> "Embedding":
    """The entry's embedding; the row says of what model, where and in what time."""
    from .embed import embed_inputs
    from .zoo import choose_device

    started = perf_counter()
    device = choose_device()
    model, inputs = _model_and_inputs(job, weights, images)
    row.update(device=str(device), seconds_build=perf_counter() - started)
    row["params_m"] = job.entry.params_m or sum(p.numel() for p in model.parameters()) / 1e6
    started = perf_counter()
    embedding = embed_inputs(
        model,
        inputs,
        device,
        layer=job.entry.layer,
        batch_size=config.compute.batch_size,
        precision=config.precision,
    )
    row["seconds_embed"] = perf_counter() - started
    return embedding


def _model_and_inputs(
    job: Job, weights: Path | None, images: LabelledImages | None
) -> "tuple[torch.nn.Module, Inputs]":
    """The entry's model, and its images as it takes them: by the view, or by its builder's own transform."""
    from .embed import View

    view = View(open_view(job.view), job.preprocessing)
    if job.entry.builder is None:
        from .zoo import build_model

        return build_model(job.entry, weights), view

    from .builder import Transformed, build

    built = build(job.entry, job.builder_sha256, weights)
    if built.transform is None or images is None:
        return built.model, view
    return built.model, Transformed(job.entry.builder, images, built.transform)


def remeasure_row(job: RemeasureJob, config: RunConfig) -> Done:
    """Measure a kept embedding by other settings and write its row."""

    def fill(row: dict[str, Any]) -> None:
        embedding = read_embedding(job.embedding, row["embedding_sha256"])
        subset = subset_with_clusters(config.folder, row["img_size"])
        with _ended_after(config.compute.model_timeout, config.folder, job.slug):
            measure_row(row, embedding, subset, config.measures)

    return _finished(config.folder, job.slug, job.name, _carried(job, config), fill)


@contextmanager
def _ended_after(seconds: float | None, out: Path, slug: str) -> Iterator[None]:
    """End this process unless it comes through in time; where each thread was goes to ``OUT/logs``.

    The clock is faulthandler's, which also fires when native code holds Python's lock. That the file is there tells the
    driver that it runs.
    """
    if seconds is None:
        yield
        return
    path = timeout_log(out, slug)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    path.unlink(missing_ok=True)


def row_written(out: Path, job: Job | RemeasureJob, since: object) -> Done | None:
    """What a worker that died left behind: the entry's outcome, if its row was written after the mark ``since``."""
    row = read_row(out, job.slug) if row_mark(out, job.slug) != since else None
    if row is None or row["row_id"] != job.row_id:
        return None
    message = "" if row["status"] == "ok" else f"{row['error_type']}: {row['error_message']}"
    return Done(job.slug, job.name, not message, message, 0.0)


def failed_row(job: Job | RemeasureJob, config: RunConfig, subset_digest: str, error: BaseException) -> Done:
    """Write the row of an entry whose task never came to write it: a stage before it failed, or its worker died."""

    def fill(row: dict[str, Any]) -> None:
        # What is damaged was made again, in vain.
        raise InputError(str(error)) if isinstance(error, DamagedFile) else error

    if isinstance(job, RemeasureJob):
        return _finished(config.folder, job.slug, job.name, _carried(job, config), fill)
    code = f" (the network is of builder {job.entry.builder})" if job.entry.builder is not None else ""
    return _finished(config.folder, job.slug, job.name, _begun(job, config, subset_digest), fill, code)


def measure_row(row: dict[str, Any], embedding: np.ndarray, subset: pd.DataFrame, settings: MeasureSettings) -> None:
    """Fill in the measures of an embedding, float [n, d], on the subset that it was taken of."""
    started = perf_counter()
    labels = subset["label"].to_numpy()
    if settings.own and row["row_id"] != row_identity(row["embedding_id"], measures_identity(settings, len(labels))):
        raise InputError(f"the module of {' or of '.join(settings.own)} {NOT_AS_PLANNED}")
    row.update(n_samples=len(labels), n_classes=len(np.unique(labels)), embedding_dim=embedding.shape[1])
    row["sigma"] = settings.sigma if settings.sigma is not None else float(np.sqrt(embedding.shape[1]))
    clusters, images = subset["input_cluster"].to_numpy(), subset["number"].to_numpy()
    row["measure_method"] = method_for(settings.method, len(labels))
    row["measure_precision"] = precision_for(settings.precision, len(labels), settings.t)
    row.update(values_of(OF_A_ROW, MeasureContext(embedding, labels, images, clusters, settings)))
    measures = [load_measure(spec) for spec in settings.own]
    with _torchs_defaults_kept():
        row.update({measure.name: measure.value(embedding, labels) for measure in measures})
    row["own_measures"] = " ".join(measure.name for measure in measures)
    row["seconds_measure"] = perf_counter() - started


def _torchs_defaults_kept() -> AbstractContextManager[object]:
    """What a measure changes of torch's defaults does not reach the next model; nothing, where torch is not loaded."""
    if "torch" not in sys.modules:
        return nullcontext()
    from .activations import defaults_kept

    return defaults_kept()


def facts(entry: ModelEntry) -> dict[str, Any]:
    """What the catalogue says of an entry, as it stands in the row."""
    names = (
        *("model", "architecture", "family", "kind", "pretraining", "extra_data", "licence"),
        *("builder", "layer", "img_size", "group", "top1", "top5", "params_m"),
    )
    return {**{name: getattr(entry, name) for name in names}, **entry.extras}


def with_current_facts(row: dict[str, Any], entry: ModelEntry) -> dict[str, Any]:
    """A finished row with what the catalogue says today; what only the run could find out stays."""
    current = facts(entry)
    for name in ("top1", "params_m"):
        if current[name] is None and (name == "params_m" or entry.recipe is not None):
            current[name] = row[name]
    ours = {column.name for column in COLUMNS} | set(row["own_measures"].split())
    return {name: value for name, value in row.items() if name in ours} | current


def _begun(job: Job, config: RunConfig, subset_digest: str) -> dict[str, Any]:
    """What is known of an entry's row before its model is built."""
    return {
        **facts(job.entry),
        **_settings(config.measures),
        "dataset": config.subset.dataset,
        "precision": config.precision,
        "embedding_id": job.embedding_id,
        "row_id": job.row_id,
        "subset_hash": subset_digest,
    }


def _carried(job: RemeasureJob, config: RunConfig) -> dict[str, Any]:
    """What of the source's row stays when its embedding is measured anew."""
    measured = set(BY_NAME) | set(job.source["own_measures"].split())
    kept = {name: value for name, value in job.source.items() if name not in measured}
    return {**kept, **_settings(config.measures), "row_id": job.row_id}


def _settings(settings: MeasureSettings) -> dict[str, Any]:
    return settings.model_dump(exclude={"own", "method", "precision", "tolerance"}) | {"own_measures": ""}


def _finished(
    out: Path,
    slug: str,
    name: str,
    row: dict[str, Any],
    fill: Callable[[dict[str, Any]], None],
    code: str = "",
) -> Done:
    """Fill the row, or note why that failed, and in whose ``code``, and write it.

    Raises
    ------
    DiskFull, DamagedFile
        For these are no fault of the model's.
    """
    started, process = perf_counter(), os.getpid()
    filled, message = dict(row), ""
    try:
        fill(filled)
        row = filled | {"status": "ok", "error_type": None, "error_message": None}
    except (DiskFull, DamagedFile):
        raise
    # A user's own code may raise what else would end a process. No Ctrl-C gets here: the driver alone answers that.
    except BaseException as error:
        kind, text = type(error).__name__, _in_one_line(error, code)
        message = f"{kind}: {text}"
        row = row | {"status": "failed", "error_type": kind, "error_message": text}
    if os.getpid() != process:  # a process that a user's code has forked came back, too
        os._exit(1)
    row |= {"versions": json.dumps(library_versions()), "finished_at": datetime.now(UTC)}
    write_row(out, slug, row)
    seconds, embed, measure = perf_counter() - started, row.get("seconds_embed"), row.get("seconds_measure")
    stages = None if embed is None or measure is None else (seconds - embed - measure, embed, measure)
    return Done(slug, name, not message, message, seconds, stages)


def _in_one_line(error: BaseException, code: str) -> str:
    """What an error says, as Parquet can hold it, whatever a user's own class of errors does."""
    try:
        said = str(error)
    except BaseException:
        said = "an error that cannot be told"
    storable = f"{said}{code}".encode(errors="backslashreplace").decode()
    return " ".join(storable.split())[:500]
