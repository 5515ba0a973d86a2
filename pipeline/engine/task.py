"""What one Dask task does: an entry becomes a row, whatever happens to it on the way."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import DamagedFile, DiskFull, InputError
from dsmi_zoo._util.files import damage
from dsmi_zoo._util.versions import library_versions
from dsmi_zoo.data_catalog.datasets.base import LabelledImages

from ..config.run import RunConfig
from ..embedding.views import open_view
from ..plan.plan import Job
from ..store.run_folder import read_embedding, read_row, row_mark, timeout_log, write_row
from ..store.staged import StagedEmbedding
from ..store.subset_file import subset_with_clusters
from .attempts import Attempts, KilledWorker
from .outcome import Done
from .row_content import RemeasureJob, begun_row, carried_row, measure_row
from .time_limit import ModelClock

if TYPE_CHECKING:
    import torch

    from ..networks.forward import Embedding, Inputs


def compute_row(
    job: Job,
    config: RunConfig,
    subset_digest: str,
    classifier_width: int | None,
    since: object,
    images: LabelledImages | None,
    weights: Path | None,
    _view: object,
) -> Done:
    """Embed and measure an entry, and write its row; subset, view and weights are there.

    Parameters
    ----------
    since
        The mark of the row as it was when the task was submitted; one that was written later is not computed again.
    images
        The subset's, for a network whose builder brings its own transform; other entries need the view only.
    weights
        A file; None stands for those that the entry's builder gives its network.
    """
    staged = StagedEmbedding(config.folder, job.slug, job.embedding_id)
    arguments = (job, config, subset_digest, classifier_width, images, weights)
    try:
        return _attempted(job, config, subset_digest, since, _computed_row, *arguments)
    finally:
        staged.discard()  # unless its process dies


def remeasure_row(job: RemeasureJob, config: RunConfig, since: object) -> Done:
    """Measure a kept embedding by other settings and write its row; ``since`` is as for `compute_row`."""
    return _attempted(job, config, "", since, _remeasured_row, job, config)


def _attempted(
    job: Job | RemeasureJob,
    config: RunConfig,
    subset_digest: str,
    since: object,
    compute: Callable[..., Done],
    *arguments: Any,
) -> Done:
    """One attempt at a row, unless an earlier one came to an end; the last one to die, or to take too long, fails."""
    written = row_written(config.folder, job, since)
    if written is not None:
        return written
    log = timeout_log(config.folder, job.slug)
    attempts = Attempts(config.folder, "row", job.slug, config.compute.model_timeout)
    if not attempts.unfinished():
        log.unlink(missing_ok=True)  # an earlier run's
    elif _took_too_long(log):
        attempts.forget()
        return failed_row(job, config, subset_digest, _too_long(config, log))
    try:
        return attempts.run(compute, *arguments)
    except KilledWorker as error:
        reason = _too_long(config, log) if _took_too_long(log) else error
        return failed_row(job, config, subset_digest, reason)


def _took_too_long(log: Path) -> bool:
    """Whether the model's clock has ended its process: then it has written where that was."""
    try:
        return log.stat().st_size > 0
    except FileNotFoundError:
        return False


def _too_long(config: RunConfig, log: Path) -> TimeoutError:
    return TimeoutError(
        f"took longer than --model-timeout {config.compute.model_timeout:g} s; see {log}"
    )


def _computed_row(
    job: Job,
    config: RunConfig,
    subset_digest: str,
    classifier_width: int | None,
    images: LabelledImages | None,
    weights: Path | None,
) -> Done:
    def fill(row: dict[str, Any]) -> None:
        import_module(
            "dsmi_zoo.pipeline.networks.timm"
        )  # torch and timm, before the model's own time begins
        clock = ModelClock(config.compute.model_timeout, timeout_log(config.folder, job.slug))
        with clock.running():
            _embed_and_measure(row, job, config, classifier_width, images, weights, clock)

    return _finished(config.folder, job.slug, job.name, begun_row(job, config, subset_digest), fill)


def _remeasured_row(job: RemeasureJob, config: RunConfig) -> Done:
    def fill(row: dict[str, Any]) -> None:
        embedding = read_embedding(job.embedding, row["embedding_sha256"])
        subset = subset_with_clusters(config.folder, row["img_size"])
        with ModelClock(
            config.compute.model_timeout, timeout_log(config.folder, job.slug)
        ).running():
            measure_row(row, embedding, subset, config.measures)

    return _finished(config.folder, job.slug, job.name, carried_row(job, config), fill)


def _embed_and_measure(
    row: dict[str, Any],
    job: Job,
    config: RunConfig,
    classifier_width: int | None,
    images: LabelledImages | None,
    weights: Path | None,
    clock: ModelClock,
) -> None:
    """Fill the entry's row, and keep its embedding if that is wanted.

    Its embedding is put aside before the measures begin, and taken from there if they ended an earlier process.
    """
    subset = subset_with_clusters(config.folder, job.entry.img_size)
    staged = StagedEmbedding(config.folder, job.slug, job.embedding_id)
    if staged.read() is None:
        staged.write(*_embedded(job, config, classifier_width, subset, images, weights, clock))
    embedded = staged.read()
    if embedded is None:
        raise InputError(
            "its embedding was changed between two steps; is OUT shared with another run?"
        )
    embedding, fields = embedded
    row.update(fields)
    measure_row(row, embedding, subset, config.measures)
    if config.compute.keep_embeddings:
        staged.keep()


def _embedded(
    job: Job,
    config: RunConfig,
    classifier_width: int | None,
    subset: pd.DataFrame,
    images: LabelledImages | None,
    weights: Path | None,
    clock: ModelClock,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The entry's embedding, float32 [n, d], and the fields of its row that tell how it was computed."""
    from ..embedding.train import stored_top1
    from ..networks.forward import defaults_kept

    with defaults_kept():  # a network's own code may change them, and the next model would suffer
        embedding, fields = _by_its_model(job, config, images, weights, clock)
    _refuse_changed(job)
    if job.entry.recipe is not None and job.weights is not None:
        fields["top1"] = stored_top1(job.weights)
    if embedding.predictions is not None and embedding.n_logits == classifier_width:
        fields["subset_top1"] = 100 * float(
            np.mean(embedding.predictions == subset["label"].to_numpy())
        )
    return embedding.values, fields


def _by_its_model(
    job: Job,
    config: RunConfig,
    images: LabelledImages | None,
    weights: Path | None,
    clock: ModelClock,
) -> "tuple[Embedding, dict[str, Any]]":
    """Build the entry's model, and pass the images through it."""
    from ..embedding.embed import embed_inputs
    from ..networks.loading_code import loading_code
    from ..networks.timm import choose_device, pooling_of
    from .gpu_lock import gpu_turn

    started = perf_counter()
    device = choose_device()
    model, inputs = _model_and_inputs(job, config, weights, images)
    fields = {"device": str(device), "seconds_build": perf_counter() - started}
    if job.entry.builder is None and job.entry.layer is None:
        fields["pooling"] = pooling_of(model)
    if not config.random_weights:
        fields["loading_code"] = loading_code(job.entry)
    fields["params_m"] = job.entry.params_m or sum(p.numel() for p in model.parameters()) / 1e6
    with gpu_turn(model, device, clock):
        started = perf_counter()
        embedding = embed_inputs(
            model,
            inputs,
            device,
            layer=job.entry.layer,
            batch_size=config.compute.batch_size,
            precision=config.precision,
            compiled=config.compute.compile,
        )
        fields["seconds_embed"] = perf_counter() - started
    return embedding, fields


def _model_and_inputs(
    job: Job, config: RunConfig, weights: Path | None, images: LabelledImages | None
) -> "tuple[torch.nn.Module, Inputs]":
    """The entry's model, and its images as it takes them: by the view, or by its builder's own transform."""
    from ..embedding.embed import View

    view = View(open_view(job.view), job.preprocessing)
    if job.entry.builder is None:
        from ..networks.timm import build_model, build_untrained, repool

        network = (
            build_untrained(job.entry) if config.random_weights else build_model(job.entry, weights)
        )
        if config.pool is not None:
            repool(network, config.pool)
        return network, view

    from ..networks.custom import Transformed, build

    built = build(job.entry, job.builder_sha256, weights)
    if built.transform is None or images is None:
        return built.model, view
    return built.model, Transformed(job.entry.builder, images, built.transform)


def _refuse_changed(job: Job) -> None:
    """Raise DamagedFile if what the embedding was computed from was damaged after it had been looked at."""
    trained = [job.weights] if job.entry.recipe is not None and job.weights is not None else []
    for path in (job.view, *trained):
        problem = damage(path)
        if problem:
            raise DamagedFile(path, problem)


def row_written(out: Path, job: Job | RemeasureJob, since: object) -> Done | None:
    """What a worker that died left behind: the entry's outcome, if its row was written after the mark ``since``."""
    row = read_row(out, job.slug) if row_mark(out, job.slug) != since else None
    if row is None or row["row_id"] != job.row_id:
        return None
    message = "" if row["status"] == "ok" else f"{row['error_type']}: {row['error_message']}"
    return Done(job.slug, job.name, not message, message, 0.0)


def failed_row(
    job: Job | RemeasureJob, config: RunConfig, subset_digest: str, error: BaseException
) -> Done:
    """Write the row of an entry whose task never came to write it: a stage before it failed, or its worker died."""

    def fill(row: dict[str, Any]) -> None:
        # What is damaged was made again, in vain.
        raise InputError(str(error)) if isinstance(error, DamagedFile) else error

    if isinstance(job, RemeasureJob):
        return _finished(config.folder, job.slug, job.name, carried_row(job, config), fill)
    code = (
        f" (the network is of builder {job.entry.builder})" if job.entry.builder is not None else ""
    )
    return _finished(
        config.folder, job.slug, job.name, begun_row(job, config, subset_digest), fill, code
    )


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
    return Done(slug, name, not message, message, perf_counter() - started)


def _in_one_line(error: BaseException, code: str) -> str:
    """What an error says, as Parquet can hold it, whatever a user's own class of errors does."""
    try:
        said = str(error)
    except BaseException:
        said = "an error that cannot be told"
    storable = f"{said}{code}".encode(errors="backslashreplace").decode()
    return " ".join(storable.split())[:500]
