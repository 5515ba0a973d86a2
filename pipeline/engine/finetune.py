"""The task that fine-tunes one entry of a run: one training per held-out part, then one row."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Client, Future

from dsmi_zoo._util.files import write_atomically
from dsmi_zoo._util.forkserver import peak_resident

from ..config.finetuning import FineTuning
from ..measures.core.hits import most_repeats, pack_hits, wilson_interval
from ..plan.job import Outcome
from ..plan.plan import Job, Plan
from ..store.finetuned import (
    PendingFolds,
    checkpoint_path,
    finetuned_path,
    read_finetuned_row,
    write_finetuned,
)
from ..store.run_folder import mark_of, timeout_log
from ..store.subset_file import read_subset
from .attempts import Attempts
from .graph import ZooGraph, remove_attempts_folder
from .task import EntryTask
from .time_limit import ModelClock
from .window import Window
from .workers import Workers

if TYPE_CHECKING:
    import torch

    from ..embedding.embed import Inputs

KIND = "finetune"


@dataclass(frozen=True)
class Images:
    """The images of a fine-tuning: each view row's image and class, and each image's class, numbered from 0."""

    image_of_row: np.ndarray
    class_of_row: np.ndarray
    classes: np.ndarray

    @classmethod
    def of(cls, out: Path) -> "Images":
        """Read the images of a run."""
        subset = read_subset(out)
        _, first, image_of_row = np.unique(
            subset["number"].to_numpy(), return_index=True, return_inverse=True
        )
        class_of_row = np.unique(subset["label"].to_numpy(), return_inverse=True)[1]
        return cls(image_of_row, class_of_row, class_of_row[first])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.classes.max()) + 1

    def rows_of(self, images: np.ndarray) -> np.ndarray:
        """Return the rows of these images, int64 [k]."""
        return np.flatnonzero(np.isin(self.image_of_row, images))


@dataclass(frozen=True)
class FineTuneTask(EntryTask):
    """The task that fine-tunes an entry; the identity of its job is that of the fine-tuning.

    Each finished training is on disk before the next one begins.

    Parameters
    ----------
    keep_checkpoint
        Whether to train once more, on all images, and keep those weights.
    """

    recipe: FineTuning
    keep_checkpoint: bool

    kind = KIND

    def first_row(self) -> dict[str, Any]:
        """Return the entry, the recipe and the identities."""
        entry = self.job.entry
        return {
            "model": entry.model,
            "img_size": entry.img_size,
            "recipe": json.dumps(self.recipe.model_dump(mode="json")),
            "embedding_id": self.job.embedding_id,
            "row_id": self.job.row_id,
        }

    def store(self, row: dict[str, Any]) -> None:
        """Write the row."""
        write_finetuned(self.config.folder, self.job.slug, row)

    def stored(self) -> dict[str, Any] | None:
        """Return the row if it was written after the task was submitted, else None."""
        out, slug = self.config.folder, self.job.slug
        is_new = mark_of(finetuned_path(out, slug)) != self.mark
        return read_finetuned_row(out, slug) if is_new else None

    def discard(self) -> None:
        """Delete the pending predictions of the trainings, which the row now contains."""
        self._pending.discard()

    def fill(self, row: dict[str, Any], weights: Path | None) -> None:
        """Train once per held-out part, unless an earlier attempt did, and predict the classes of that part."""
        tuning = import_module("dsmi_zoo.pipeline.embedding.finetune")  # before the clock starts
        images = Images.of(self.config.folder)
        tuning.check_classes(images.classes)
        known = read_finetuned_row(self.config.folder, self.job.slug) or {}
        is_known = known.get("row_id") == self.job.row_id and known.get("status") == "ok"
        clock = self.clock()
        with clock.running():
            row.update(known if is_known else self._accuracies(images, weights, clock))
            if self.keep_checkpoint:
                self._keep_checkpoint(images, weights, clock)

    def _accuracies(
        self, images: Images, weights: Path | None, clock: ModelClock
    ) -> dict[str, Any]:
        parts = self.recipe.held_out(images.classes)
        predictions = np.full(len(images.class_of_row), -1)
        facts: list[dict[str, float]] = []
        for fold, part in enumerate(parts):
            rows = images.rows_of(part)
            done = self._pending.read(fold, len(rows))
            if done is None:
                done = self._trained_without(images, fold, rows, weights, clock)
                self._pending.write(fold, *done)
            predictions[rows], of_fold = done
            facts.append(of_fold)
        correct = predictions == images.class_of_row
        hits = most_repeats(correct, images.image_of_row)
        held = np.sort(np.concatenate(parts))
        is_held = np.zeros(len(hits), dtype=bool)
        is_held[held] = True
        of_parts = [100 * float(hits[part].mean()) for part in parts]
        low, high = wilson_interval(int(hits[held].sum()), len(held))
        classes = images.classes[held]
        sizes = np.bincount(classes)
        shares = np.bincount(classes, weights=hits[held])[sizes > 0] / sizes[sizes > 0]
        fields: dict[str, Any] = {
            "finetuned_accuracy": 100 * float(hits[held].mean()),
            "finetuned_low": low,
            "finetuned_high": high,
            "finetuned_balanced_accuracy": 100 * float(shares.mean()),
            "finetuned_spread": float(np.std(of_parts, ddof=1)) if len(parts) > 1 else None,
            "trainings": len(parts),
            "finetuned_hits": pack_hits(hits[held]),
            "held_out": pack_hits(is_held),
            "n_images": len(hits),
            "n_classes": images.n_classes,
            "minutes": sum(one["seconds"] for one in facts) / 60,
            "peak_memory_gb": max(one["peak_bytes"] for one in facts) / 1e9,
        }
        return fields | self._where()

    def _where(self) -> dict[str, Any]:
        from ..embedding.finetune import mixed_precision
        from ..networks.timm import choose_device

        device = choose_device()
        return {"device": str(device), "precision": mixed_precision(device) or "fp32"}

    def _trained_without(
        self,
        images: Images,
        fold: int,
        rows: np.ndarray,
        weights: Path | None,
        clock: ModelClock,
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Train on all other rows; return the predictions for the held-out rows, and the seconds and memory used."""
        from ..embedding.finetune import predicted

        train = np.setdiff1d(np.arange(len(images.class_of_row)), rows)
        with peak_memory() as peak:
            started = perf_counter()
            with self._trained(images, train, weights, clock, self.recipe.seed + fold) as trained:
                predictions = predicted(*trained[:2], rows, trained[2])
                peak_bytes = peak()
            seconds = perf_counter() - started
        return predictions, {"seconds": seconds, "peak_bytes": peak_bytes}

    @contextmanager
    def _trained(
        self, images: Images, train: np.ndarray, weights: Path | None, clock: ModelClock, seed: int
    ) -> "Iterator[tuple[torch.nn.Module, Inputs, torch.device]]":
        """Yield the network trained on the ``train`` rows, its images, and the device, held exclusively until exit."""
        import torch

        from ..embedding.finetune import fine_tune, with_new_classifier
        from ..networks.forward import defaults_kept, random_states_kept
        from ..networks.timm import choose_device
        from .time_limit import gpu_turn

        device = choose_device()
        with defaults_kept():  # as for embeddings
            network, inputs, _ = self.prepare(weights)
            with random_states_kept():
                torch.manual_seed(seed)
                model = with_new_classifier(network, images.n_classes, self.job.entry.layer, inputs)
            with gpu_turn(model, device, clock):
                fine_tune(model, inputs, images.class_of_row, train, self.recipe, device, seed)
                yield model, inputs, device

    def _keep_checkpoint(self, images: Images, weights: Path | None, clock: ModelClock) -> None:
        import safetensors.torch

        path = checkpoint_path(self.config.folder, self.job.slug, self.job.row_id)
        if path.exists():
            return
        every = np.arange(len(images.class_of_row))
        with self._trained(images, every, weights, clock, self.recipe.seed) as (model, _, _):
            state = {name: one.cpu().contiguous() for name, one in model.state_dict().items()}
        entry = self.job.entry
        metadata = {
            "model": str(entry),
            "row_id": self.job.row_id,
            "classes": str(images.n_classes),
        }
        content = safetensors.torch.save(state, metadata=metadata)
        write_atomically(path, lambda file: file.write(content))

    @property
    def _pending(self) -> PendingFolds:
        return PendingFolds(self.config.folder, self.job.slug, self.job.row_id)

    @property
    def _timeout_log(self) -> Path:
        return timeout_log(self.config.folder, f"{self.job.slug}.{KIND}")


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the peak memory since entry, in bytes: of the GPU, else of this process.

    Only Linux can reset a process's peak resident memory; elsewhere the peak covers the process's whole life.
    """
    import resource

    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield lambda: float(torch.cuda.max_memory_allocated())
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        yield lambda: 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return
    yield lambda: float(peak_resident() or 0)


class FineTuneGraph(ZooGraph):
    """The tasks of fine-tunings: ``weights``, ``view`` and ``finetune`` for each entry."""

    def __init__(
        self, client: Client, plan: Plan, jobs: Sequence[Job], recipe: FineTuning, keep: bool
    ) -> None:
        super().__init__(client, plan, jobs)
        self._recipe, self._keep = recipe, keep

    def submit(self, job: Job, priority: int) -> Future:
        """Submit an entry's weights and fine-tuning, and its view unless already submitted."""
        view, weights = self.view(job, priority), self._weights(job, priority)
        run = self._row_task(job).run
        last = self.task(KIND, job.name, job.row_id, priority, run, weights, view)
        return self.hold(job, weights, last)

    def unit(self, job: Job) -> str:
        """Return the entry's name."""
        return job.name

    def attempts(self, job: Job) -> list[Attempts]:
        """Return the counters of an entry's weights and fine-tuning."""
        return [Attempts(self._out, kind, job.slug) for kind in ("weights", KIND)]

    def _row_task(self, job: Job) -> FineTuneTask:
        task = super()._row_task(job)
        return FineTuneTask(
            job=job,
            config=self._config,
            mark=mark_of(finetuned_path(self._out, job.slug)),
            subset_hash=task.subset_hash,
            orders=task.orders,
            images=task.images,
            recipe=self._recipe,
            keep_checkpoint=self._keep,
        )


def fine_tune_entries(
    workers: Workers,
    plan: Plan,
    jobs: Sequence[Job],
    recipe: FineTuning,
    keep: bool,
    confirm_lock: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """Fine-tune entries, each identified by its fine-tuning; each row is on disk before it is reported."""
    graph = FineTuneGraph(workers.client, plan, jobs, recipe, keep)
    try:
        for _, outcome in Window(workers, graph, jobs, confirm_lock=confirm_lock).outcomes():
            yield outcome
    finally:
        graph.close()
    remove_attempts_folder(plan.config.folder)
