"""The tasks that turn an entry into a row on a worker, even if the computation fails."""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import DamagedFile, DiskFull, InputError
from dsmi_zoo._util.files import damage_problem
from dsmi_zoo._util.versions import library_versions
from dsmi_zoo.data_catalog.datasets.base import LabelledImages
from dsmi_zoo.data_catalog.datasets.class_order import ClassOrders

from ..config.run import RunConfig
from ..embedding.views import open_view
from ..measures.catalog import UNDEFINED, format_reasons, parse_reasons
from ..measures.own import column_of, load_measure, spec_of
from ..plan.job import Outcome
from ..plan.plan import Job
from ..store.embedding_file import PendingEmbedding, read_embedding
from ..store.run_folder import read_row, row_mark, timeout_log, write_row
from ..store.subset_file import read_subset, subset_with_clusters
from .attempts import Attempts, KilledWorker
from .row_content import (
    SUBSET_TOP1,
    RemeasureJob,
    Scored,
    initial_row,
    lacks,
    measure_row,
    remeasured_row,
    scored_by_classifier,
    torch_defaults_kept,
    with_own_scores,
)
from .time_limit import ModelClock, timed_out, timeout_error

if TYPE_CHECKING:
    import torch

    from ..embedding.embed import Inputs
    from ..networks.checkpoints import Loaded
    from ..networks.forward import Embedding

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class RowTask:
    """The task that computes the row of one entry.

    ``mark`` is the stored row's mark when the task was submitted; a row written after that is not computed again.
    """

    job: Job | RemeasureJob
    config: RunConfig
    mark: object

    kind = "row"

    def run(self, weights: Path | None = None, *_after: object) -> Outcome:
        """Make one attempt at the row, unless an earlier one finished it.

        The row fails if the last attempt dies or exceeds its time limit.
        """
        attempts = Attempts(
            self.config.folder, self.kind, self.job.slug, self.config.compute.model_timeout
        )
        try:
            written = self.written_by_earlier_attempt()
            if written is not None:
                return written
            return _attempted(attempts, self._timeout_log, self.fail, self.compute, weights)
        finally:
            # Only an attempt whose process dies leaves files for the next one.
            self.discard()

    def discard(self) -> None:
        """Delete the files that an attempt stores before the row is written."""
        PendingEmbedding(self.config.folder, self.job.slug).discard()

    def store(self, row: dict[str, Any]) -> None:
        """Write the row."""
        write_row(self.config.folder, self.job.slug, row)

    def stored(self) -> dict[str, Any] | None:
        """Return the row if it was written after the task was submitted, else None."""
        out, slug = self.config.folder, self.job.slug
        return read_row(out, slug) if row_mark(out, slug) != self.mark else None

    def compute(self, weights: Path | None = None) -> Outcome:
        """Fill in the row and write it; an error is recorded in the row.

        Raises
        ------
        DiskFull, DamagedFile
            Instead of being recorded, because they are not the model's fault.
        """
        started, process = perf_counter(), os.getpid()
        row, failure = self.first_row(), None
        try:
            self.fill(row, weights)
        except (DiskFull, DamagedFile):
            raise
        # User code may raise exceptions that usually end a process. Ctrl-C never gets here: only the driver handles it.
        except BaseException as error:
            row, failure = self.first_row(), error
        if os.getpid() != process:  # user code has forked, and this is the child
            os._exit(1)
        return self.write(row, failure, seconds=perf_counter() - started)

    def fail(self, error: BaseException) -> Outcome:
        """Write a failed row for an error outside `compute`: an earlier task failed, or the worker died."""
        if isinstance(error, DamagedFile):  # making the file again did not help
            error = InputError(str(error))
        return self.write(self.first_row(), error, code=self._own_code())

    def first_row(self) -> dict[str, Any]:
        """Return the fields that are known before the row is computed."""
        raise NotImplementedError

    def fill(self, row: dict[str, Any], weights: Path | None) -> None:
        """Compute the row's values."""
        raise NotImplementedError

    def write(
        self, row: dict[str, Any], error: BaseException | None, code: str = "", seconds: float = 0.0
    ) -> Outcome:
        """Store the row as ``ok``, or as failed with the ``error`` and the user's ``code`` that caused it."""
        kind, text, message = None, None, ""
        if error is not None:
            kind, text = type(error).__name__, _in_one_line(error, code)
            message = f"{kind}: {text}"
        row |= {
            "status": "ok" if error is None else "failed",
            "error_type": kind,
            "error_message": text,
            "versions": json.dumps(library_versions()),
            "finished_at": datetime.now(UTC),
        }
        self.store(row)
        readings = row.get("readings") or ""
        return Outcome(self.job.slug, self.job.name, error is None, message, seconds, readings)

    def clock(self) -> ModelClock:
        """Return the clock that ends the process after ``--model-timeout``."""
        return ModelClock(self.config.compute.model_timeout, self._timeout_log)

    @property
    def _timeout_log(self) -> Path:
        return timeout_log(self.config.folder, self.job.slug)

    def written_by_earlier_attempt(self) -> Outcome | None:
        """Return the outcome of the row if it was written after the task was submitted, else None."""
        job, row = self.job, self.stored()
        if row is None or row["row_id"] != job.row_id:
            return None
        is_ok = row["status"] == "ok"
        message = "" if is_ok else f"{row['error_type']}: {row['error_message']}"
        return Outcome(job.slug, job.name, is_ok, message, 0.0, row["readings"] or "")

    def _own_code(self) -> str:
        return ""


@dataclass(frozen=True)
class EntryTask(RowTask):
    """The task that embeds and measures an entry, whose subset, view and weights exist already.

    Parameters
    ----------
    orders
        The possible assignments of a classifier's outputs to the classes of the data set.
    images
        The subset's images, for a network whose builder has its own transform; other entries need only the view.
    """

    job: Job
    subset_hash: str
    orders: ClassOrders
    images: LabelledImages | None

    def first_row(self) -> dict[str, Any]:
        """Return the catalogue's facts, the settings and the identities."""
        return initial_row(self.job, self.config, self.subset_hash)

    def fill(self, row: dict[str, Any], weights: Path | None) -> None:
        """Embed the images, and measure the embedding.

        The embedding is stored before the measures begin, so that no second forward pass is needed if the process dies
        during them. ``weights`` is None for an entry whose builder makes its own.
        """
        import_module(
            "dsmi_zoo.pipeline.networks.timm"
        )  # loads torch before the model's clock starts
        clock = self.clock()
        with clock.running():
            subset = subset_with_clusters(self.config.folder, self.job.entry.img_size)
            pending = PendingEmbedding(self.config.folder, self.job.slug)
            if pending.read(self.job.embedding_id) is None:
                layer = self.job.entry.layer
                embedding, fields = self.embed(weights, subset, clock, [layer])[layer]
                pending.write(self.job.embedding_id, embedding, fields)
            self.measure(row, subset, pending)

    def prepare(self, weights: Path | None) -> "tuple[torch.nn.Module, Inputs, Loaded]":
        """Build the entry's model, and open its images: the view, or the output of its builder's own transform."""
        from ..embedding.embed import View
        from ..networks.checkpoints import Loaded

        job, config = self.job, self.config
        view = View(open_view(job.view), job.preprocessing)
        if job.entry.builder is None:
            from ..networks.timm import build_untrained, loaded_model, repool

            if config.random_weights:
                network, loaded = build_untrained(job.entry), Loaded()
            else:
                network, loaded = loaded_model(job.entry, weights)
            if config.pool is not None:
                repool(network, config.pool)
            return network, view, loaded

        from ..networks.custom import Transformed, build

        built = build(job.entry, job.builder_sha256, weights)
        if built.transform is None or self.images is None:
            return built.model, view, built.loaded
        images = Transformed(job.entry.builder, self.images, built.transform)
        return built.model, images, built.loaded

    def embed(
        self,
        weights: Path | None,
        subset: pd.DataFrame,
        clock: ModelClock,
        layers: Sequence[str | None],
    ) -> dict[str | None, tuple[np.ndarray, dict[str, Any]]]:
        """Compute the embeddings of some layers, float32 [n, d], and the row fields that describe the computation.

        With several layers, those without an embedding are left out; with a single layer, its error is raised.
        """
        from ..embedding.train import stored_top1
        from ..networks.forward import defaults_kept
        from ..networks.timm import choose_device, loading_code, pooling_of
        from .time_limit import gpu_turn

        job, entry, config = self.job, self.job.entry, self.config
        with defaults_kept():  # a network's own code may change them, and affect the next model
            started = perf_counter()
            device = choose_device()
            model, inputs, loaded = self.prepare(weights)
            fields: dict[str, Any] = {"device": str(device)}
            fields["seconds_build"] = perf_counter() - started
            fields["readings"] = loaded.readings or None
            if not config.random_weights and loaded.by_timm:
                fields["loading_code"] = loading_code(entry)
            fields["params_m"] = entry.params_m or sum(p.numel() for p in model.parameters()) / 1e6
            with gpu_turn(model, device, clock):
                started = perf_counter()
                scored = self._passes(model, inputs, device, layers, subset)
                fields["seconds_embed"] = perf_counter() - started

        trained = job.weights if entry.recipe is not None else None
        for path in filter(None, (job.view, trained)):
            problem = damage_problem(path)
            if problem:  # it was damaged after it was opened
                raise DamagedFile(path, problem)
        if trained is not None:
            fields["top1"] = stored_top1(trained)
        found: dict[str | None, tuple[np.ndarray, dict[str, Any]]] = {}
        for embedding, scores, reasons in scored:
            value, reason = self.subset_top1(embedding, subset, model, weights)
            if reason:
                reasons[SUBSET_TOP1] = reason
            shared = fields | scores
            shared |= {SUBSET_TOP1: value} if value is not None else {}
            shared |= {UNDEFINED: format_reasons(reasons)} if reasons else {}
            for layer, values in embedding.by_layer().items():
                found[layer] = values, dict(shared)
                if layer is not None:
                    found[layer][1]["layer_depth"] = embedding.depths.get(layer)
                elif entry.builder is None:
                    found[layer][1]["pooling"] = pooling_of(model)
        return found

    def _passes(
        self,
        model: "torch.nn.Module",
        inputs: "Inputs",
        device: "torch.device",
        layers: Sequence[str | None],
        subset: pd.DataFrame,
    ) -> "list[Scored]":
        """Embed the images with all layers in one pass, or with one pass per layer where hooks would change values."""
        from ..embedding.embed import embed_inputs, shares_a_pass

        compute = self.config.compute
        passes = [list(layers)] if shares_a_pass(model) else [[layer] for layer in layers]
        if compute.compile and None in layers and len(passes) < len(layers):
            # Compiled code runs no hooks. The compiled pass is last, because the network stays compiled.
            passes = [[layer for layer in layers if layer is not None], [None]]
        labels, images = subset["label"].to_numpy(), subset["number"].to_numpy()
        return [
            scored_by_classifier(
                embed_inputs(
                    model,
                    inputs,
                    device,
                    layer=first,
                    also=[layer for layer in others if layer is not None],
                    probabilities=True,
                    batch_size=compute.batch_size,
                    precision=self.config.precision,
                    compiled=compute.compile,
                ),
                labels,
                images,
            )
            for first, *others in (sorted(one, key=_is_named) for one in passes)
        ]

    def subset_top1(
        self, embedding: "Embedding", subset: pd.DataFrame, model: Any, weights: Path | None
    ) -> tuple[float | None, str]:
        """Return the accuracy of the network's own classifier in percent, or why its output order leaves it undefined.

        Both are empty without a classifier, or with one for other classes.
        """
        from ..networks.class_list import with_listed_order

        predictions, width = embedding.predictions, embedding.n_logits
        if predictions is None or width is None:
            return None, ""
        orders, reason = self.orders, ""
        if orders.is_open:
            checkpoint = weights if self.job.entry.checkpoint is not None else None
            orders, reason = with_listed_order(orders, width, model, checkpoint)
        if reason:
            return None, reason
        return orders.top1(predictions, subset["label"].to_numpy(), width)

    def measure(self, row: dict[str, Any], subset: pd.DataFrame, pending: PendingEmbedding) -> None:
        """Add the stored embedding's fields and measures to the row; keep the embedding if the settings say so."""
        embedded = pending.read(self.job.embedding_id)
        if embedded is None:
            raise InputError(
                "its embedding was changed between two steps; is OUT shared with another run?"
            )
        embedding, fields = embedded
        row.update(fields)
        measure_row(row, embedding, subset, self.config.measures)
        if self.config.compute.keep_embeddings:
            pending.keep()

    def _own_code(self) -> str:
        builder = self.job.entry.builder
        return "" if builder is None else f" (the network is of builder {builder})"


def _attempted(
    attempts: Attempts,
    log: Path,
    fail: Callable[[BaseException], Result],
    work: Callable[..., Result],
    *arguments: Any,
) -> Result:
    """Make one attempt at ``work``; call ``fail`` if its last attempt's process died or ``log`` records a timeout."""
    if not attempts.unfinished():
        log.unlink(missing_ok=True)  # left by an earlier run
    elif timed_out(log):
        attempts.forget()
        return fail(timeout_error(attempts.timeout, log))
    try:
        result: Result = attempts.run(work, *arguments)
    except KilledWorker as error:
        return fail(timeout_error(attempts.timeout, log) if timed_out(log) else error)
    return result


def _raised(error: BaseException) -> None:
    raise error


def _is_named(layer: str | None) -> bool:
    return layer is not None


@dataclass(frozen=True)
class PassTask:
    """The shared forward pass of one network's layers; each layer's row then reads its stored embedding.

    Parameters
    ----------
    tasks
        The tasks of the rows, all of one network.
    """

    tasks: tuple[EntryTask, ...]

    def run(self, weights: Path | None = None, _view: object = None) -> None:
        """Make one attempt at the embeddings of the rows that have none yet.

        Raises
        ------
        KilledWorker, TimeoutError
            It then becomes each row's error.
        """
        missing = [task for task in self.tasks if self._is_missing(task)]
        if len(missing) < 2:  # a single row makes its own pass
            return
        config, slug = missing[0].config, self.tasks[0].job.slug
        attempts = Attempts(config.folder, "pass", slug, config.compute.model_timeout)
        _attempted(attempts, self._timeout_log, _raised, self.embed, missing, weights)

    def embed(self, missing: Sequence[EntryTask], weights: Path | None) -> None:
        """Compute and store the embedding of each row.

        Errors other than DiskFull and DamagedFile are ignored: they recur in each row's own pass, which records them.
        """
        import_module("dsmi_zoo.pipeline.networks.timm")  # loads torch before the clock starts
        first, process = missing[0], os.getpid()
        folder = first.config.folder
        clock = ModelClock(first.config.compute.model_timeout, self._timeout_log)
        with clock.running():
            subset = subset_with_clusters(folder, first.job.entry.img_size)
            layers = [task.job.entry.layer for task in missing]
            try:
                found = first.embed(weights, subset, clock, layers)
            except (DiskFull, DamagedFile):
                raise
            except BaseException as error:  # as in `RowTask.compute`
                log.debug("the layers of %s do not share a pass: %s", first.job.name, error)
                found = {}
            if os.getpid() != process:  # user code has forked, and this is the child
                os._exit(1)
            for task in missing:
                if task.job.entry.layer in found:
                    values, fields = found[task.job.entry.layer]
                    pending = PendingEmbedding(folder, task.job.slug)
                    pending.write(task.job.embedding_id, values, fields)

    @property
    def _timeout_log(self) -> Path:
        job = self.tasks[0].job
        return timeout_log(self.tasks[0].config.folder, f"{job.slug}.pass")

    def _is_missing(self, task: EntryTask) -> bool:
        if task.written_by_earlier_attempt() is not None:
            return False
        pending = PendingEmbedding(task.config.folder, task.job.slug)
        return pending.read(task.job.embedding_id) is None


@dataclass(frozen=True)
class RemeasureTask(RowTask):
    """The task that measures a kept embedding with other settings."""

    job: RemeasureJob

    def first_row(self) -> dict[str, Any]:
        """Return the fields of the source row other than its measures."""
        return remeasured_row(self.job, self.config)

    def fill(self, row: dict[str, Any], weights: Path | None) -> None:
        """Measure the kept embedding; ``weights`` is not used."""
        embedding = read_embedding(self.job.embedding, row["embedding_sha256"])
        subset = subset_with_clusters(self.config.folder, row["img_size"])
        with self.clock().running():
            measure_row(row, embedding, subset, self.config.measures)


@dataclass(frozen=True)
class OwnScoresTask(RowTask):
    """The task that adds the user's own measures to a finished row, whose other columns are unchanged.

    Parameters
    ----------
    identities
        Identities of the measures' code when it was planned.
    """

    job: RemeasureJob
    identities: tuple[str, ...]

    def compute(self, weights: Path | None = None) -> Outcome:
        """Compute the measures and write the row; a measure that raises has no value, and the row records why."""
        started, process = perf_counter(), os.getpid()
        values: dict[str, float] = {}
        reasons: dict[str, str] = {}
        try:
            embedding = read_embedding(self.job.embedding, self.job.source["embedding_sha256"])
            labels = read_subset(self.config.folder)["label"].to_numpy()
            with self.clock().running(), torch_defaults_kept():
                for identity in self.identities:
                    try:
                        values[column_of(identity)] = self._value(identity, embedding, labels)
                    except BaseException as error:  # as in `RowTask.compute`
                        reasons[column_of(identity)] = _in_one_line(error, "")
        except InputError as error:  # in reading the embedding
            reasons = dict.fromkeys(map(column_of, self.identities), str(error))
        if os.getpid() != process:  # user code has forked, and this is the child
            os._exit(1)
        return self._write(values, reasons, perf_counter() - started)

    def fail(self, error: BaseException) -> Outcome:
        """Write the row without values, because the worker died or the time was up."""
        reason = _in_one_line(error, "")
        return self._write({}, dict.fromkeys(map(column_of, self.identities), reason))

    def written_by_earlier_attempt(self) -> Outcome | None:
        """Return the outcome of a row that an earlier attempt wrote: ok only if it has all the measures."""
        written = super().written_by_earlier_attempt()
        row = None if written is None else read_row(self.config.folder, self.job.slug)
        if written is None or row is None:
            return None
        lacking = [column_of(one) for one in self.identities if lacks(row, one)]
        reasons = parse_reasons(row[UNDEFINED] or "")
        message = "; ".join(f"{name}: {reasons.get(name, 'no value')}" for name in lacking)
        return replace(written, ok=not lacking, message=message)

    def _value(self, identity: str, embedding: np.ndarray, labels: np.ndarray) -> float:
        own = load_measure(spec_of(identity))
        if own.identity != identity:
            raise InputError(f"the module of {own.spec} has changed meanwhile; repeat the command")
        return own.value(embedding, labels)

    def _write(
        self, values: Mapping[str, float], reasons: Mapping[str, str], seconds: float = 0.0
    ) -> Outcome:
        job = self.job
        row = with_own_scores(job.source, self.identities, values, reasons)
        write_row(self.config.folder, job.slug, row)
        message = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        return Outcome(job.slug, job.name, not reasons, message, seconds)


def _in_one_line(error: BaseException, code: str) -> str:
    """Return an error's message in a form that Parquet can hold, whatever a user's exception class does."""
    try:
        said = str(error)
    except BaseException:
        said = "an error that cannot be shown"
    storable = f"{said}{code}".encode(errors="backslashreplace").decode()
    return " ".join(storable.split())[:500]
