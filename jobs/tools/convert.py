"""Convert a model of a run for deployment, and prove that the file computes the same."""

import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import flush, make_folder, move, write_json
from dsmi_zoo._util.text import size_in_words
from dsmi_zoo._util.versions import library_versions
from dsmi_zoo.data_catalog.models.filters import Filters
from dsmi_zoo.pipeline.plan.plan import Job, Plan, plan_of_all
from dsmi_zoo.pipeline.store.kept import KeptEmbedding, embedding, entry_named
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.release import refuse_release
from dsmi_zoo.pipeline.store.run_folder import read_row, read_run

from ..progress import SILENT, Display
from ..terminal import print_line

if TYPE_CHECKING:
    import torch

    from dsmi_zoo.pipeline.networks.deployed import Deployed, Reader
    from dsmi_zoo.pipeline.networks.forward import Inputs

log = logging.getLogger(__name__)

BATCH = 8
PROOF_IMAGES = 1000  # if there are more, evenly spaced ones are compared
LEVEL = 0.05  # significance level of McNemar's test
MAY_CHANGE = 0.01  # share of the predictions, at the border between two classes
EXPORT_TOLERANCE = 1e-3
"""The largest allowed difference of an embedding's value between file and network, in units of its root mean square."""
RUN_TOLERANCE = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 0.2, "fp16": 2e-2}
"""The same between the file and the run's kept embedding, by the run's precision."""


@dataclass(frozen=True)
class Difference:
    """The difference between an exported file and a reference on the same images.

    Attributes
    ----------
    embedding
        The largest difference of a value of the embedding, in units of the reference's root mean square.
    allowed
        The greatest ``embedding`` that passes.
    predictions
        The number of images for which another class is predicted.
    mcnemar_p
        The p value of McNemar's exact test on the images that only one of the two classifies correctly.
    """

    embedding: float
    allowed: float
    predictions: int
    mcnemar_p: float
    images: int

    @property
    def passes(self) -> bool:
        """Whether the file computes the same as the reference, within the tolerances."""
        is_same = self.embedding <= self.allowed and self.predictions <= MAY_CHANGE * self.images
        return is_same and self.mcnemar_p >= LEVEL

    def __str__(self) -> str:
        return (
            f"largest difference {self.embedding:.1e} of the embedding's root mean square (at most {self.allowed:g}), "
            f"{self.predictions} of {self.images} predictions differ, McNemar's p = {self.mcnemar_p:.2g}"
        )


def convert(out: Path, model: str, to: Path, display: Display = SILENT) -> int:
    """Write a model's network with a ridge probe for the run's classes, and its proof ``FILE.json``.

    Returns
    -------
    int
        The exit code: 1 if the file does not compute the same as the network; then nothing is written.

    Raises
    ------
    InputError
        When the run has no such model or embedding, the file exists or has another suffix, a library is missing, or the
        network cannot be exported.
    """
    beside = to.with_name(f"{to.name}.json")
    for path in (to, beside):
        if path.exists():
            raise InputError(f"--to {path} exists; move it away, or choose another name")
    with display.status("Loading torch"):
        from dsmi_zoo.pipeline.networks.deployed import refuse_format, timm_arguments, write

        refuse_format(to)
    refuse_release(out)
    record = read_run(out)
    kept = embedding(out, model)
    with display.status("Reading catalogue and images"):
        job, plan = _planned(out, record, model)
    names = _class_names(record, kept)
    with display.status("Building the network"):
        network, inputs = _built(job, plan, kept)
        deployed = _deployed(network, inputs, job, kept)
    arguments = timm_arguments(job.entry, len(names), record.config.pool)
    note = _note(job, record, names, arguments)
    make_folder(to.absolute().parent)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=to.absolute().parent) as folder:
        temporary = Path(folder) / to.name
        with display.status(f"Exporting to {to.name}"):
            write(deployed, temporary, _pixels(inputs, 0, 2), note, job.entry)
        with display.status("Comparing on the run's images"):
            by_network, by_run = _differences(
                temporary, deployed, inputs, kept, job, plan, arguments
            )
        print_line(f"file and network: {by_network}")
        print_line(f"file and run:     {by_run}")
        if not (by_network.passes and by_run.passes):
            log.error(f"{to} would not compute what {job.name} computes, so it is not written")
            return 1
        proof = {"file and network": asdict(by_network), "file and run": asdict(by_run)}
        size = size_in_words(temporary.stat().st_size)
        write_json(beside, {**note, "proof": proof, "run_by": _runtime(to.suffix)})
        temporary.chmod(0o644)
        flush(temporary)
        move(temporary, to)
    log.info(f"{to}: {size}, {len(names)} classes; transform, classes and proof are in {beside}")
    return 0


def _planned(out: Path, record: RunRecord, model: str) -> tuple[Job, Plan]:
    """Return the job of a model and its plan; raise InputError if its embedding would no longer be the kept one."""
    if record.config.random_weights:
        raise InputError(f"{out} has random weights (--random-weights): there is nothing to deploy")
    entry = entry_named(record, model, out)
    changes = {"out": out.absolute(), "models": (), "filters": Filters()}
    plan = plan_of_all(record.config.model_copy(update=changes), record)
    job = next((one for one in plan.jobs if one.slug == entry.slug), None)
    row = read_row(out, entry.slug)
    if job is None:
        raise InputError(f"{entry} is no longer in the catalogue of {out}")
    if row is None or row["embedding_id"] != job.embedding_id:
        raise InputError(
            f"{entry} would have another embedding than in {out}, because its weights, code, transform or images have "
            "changed; `dsmi-zoo rerun` computes it"
        )
    return job, plan


def _class_names(record: RunRecord, kept: KeptEmbedding) -> list[str]:
    """Return the names of the classes in the order of their labels; their numbers, if the run recorded none."""
    labels = np.unique(kept.labels)
    if len(labels) < 2:
        raise InputError("the images are of one class, so there is no probe to deploy")
    classes = record.subset.classes
    return [str(label) if classes is None else classes[label] for label in labels.tolist()]


def _built(job: Job, plan: Plan, kept: KeptEmbedding) -> "tuple[torch.nn.Module, Inputs]":
    from dsmi_zoo.pipeline.engine.prepare import prepare_view, prepare_weights
    from dsmi_zoo.pipeline.engine.task import EntryTask

    subset = plan.subset
    prepare_view(job, plan.config, subset)
    task = EntryTask(job, plan.config, None, subset.digest, subset.orders, subset.images)
    network, inputs, _ = task.prepare(prepare_weights(job, plan.config))
    if len(inputs) != len(kept.Z):
        raise InputError(f"{len(inputs)} images, but the run has embeddings of {len(kept.Z)}")
    return network, inputs


def _deployed(
    network: "torch.nn.Module", inputs: "Inputs", job: Job, kept: KeptEmbedding
) -> "Deployed":
    from dsmi_zoo.pipeline.networks.deployed import Deployed

    weights, intercepts = head_of(kept)
    example = _pixels(inputs, 0, 2)
    return Deployed(network, job.entry.layer, weights, intercepts, example).eval()


def head_of(kept: KeptEmbedding) -> tuple[np.ndarray, np.ndarray]:
    """Return the probe of ``probe_accuracy`` fitted to all images: weights [d, k], intercepts [k], by class label."""
    from dsmi_zoo.pipeline.measures.core.context import MeasureContext
    from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
    from dsmi_zoo.pipeline.measures.scores.probe import fitted

    context = MeasureContext(kept.Z, kept.labels, kept.files, None, MeasureSettings())
    weights, intercepts = fitted(context)
    _, codes = np.unique(kept.labels, return_inverse=True)
    order = np.empty(len(intercepts), dtype=np.int64)
    order[codes] = context.classes  # the context numbers classes as they appear
    return weights[:, order], intercepts[order]


def _pixels(inputs: "Inputs", start: int, stop: int) -> "torch.Tensor":
    import torch

    return inputs.batch(start, stop, torch.device("cpu"))


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of all batches, or of evenly spaced ones if there are more than `PROOF_IMAGES` images."""
    starts = np.arange(0, count, BATCH)
    if count > PROOF_IMAGES:
        chosen = np.linspace(0, len(starts) - 1, PROOF_IMAGES // BATCH).astype(int)
        starts = starts[chosen]
    for start in starts.tolist():
        yield start, min(start + BATCH, count)


def _differences(
    file: Path,
    deployed: "Deployed",
    inputs: "Inputs",
    kept: KeptEmbedding,
    job: Job,
    plan: Plan,
    arguments: dict[str, Any],
) -> tuple[Difference, Difference]:
    """Return how the file differs from the network here, and from the run's kept embedding with the same probe."""
    import torch

    from dsmi_zoo.pipeline.networks.deployed import reader_of

    read: Reader = reader_of(file, job.entry.architecture, arguments)
    parts: list[tuple[np.ndarray, ...]] = []
    rows: list[int] = []
    with torch.inference_mode():
        for start, stop in _blocks(len(inputs)):
            images = _pixels(inputs, start, stop)
            scores, values = deployed(images)
            parts.append((*read(images), scores.numpy(), values.numpy()))
            rows += range(start, stop)
    of_file, Z_of_file, of_network, Z_of_network = map(np.concatenate, zip(*parts, strict=True))
    with torch.inference_mode():
        of_run = deployed.head(torch.from_numpy(kept.Z[rows])).numpy()
    truth = np.unique(kept.labels, return_inverse=True)[1][rows]
    allowed = RUN_TOLERANCE[plan.config.precision]
    return (
        difference(Z_of_file, Z_of_network, of_file, of_network, truth, EXPORT_TOLERANCE),
        difference(Z_of_file, kept.Z[rows], of_file, of_run, truth, allowed),
    )


def difference(
    Z: np.ndarray,
    wanted: np.ndarray,
    scores: np.ndarray,
    wanted_scores: np.ndarray,
    truth: np.ndarray,
    allowed: float,
) -> Difference:
    """Compare embeddings [n, d] and scores [n, classes] with the wanted ones; ``truth`` [n] holds the true classes."""
    from dsmi_zoo.reports.statistics.paired import two_sided_p

    if Z.shape != wanted.shape:
        raise InputError(f"the file gives an embedding {list(Z.shape)}, not {list(wanted.shape)}")
    size = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64)))) or 1.0
    largest = float(np.max(np.abs(Z.astype(np.float64) - wanted))) / size
    here, there = scores.argmax(axis=1), wanted_scores.argmax(axis=1)
    p = two_sided_p(there == truth, (here == truth)[None], np.ones(len(truth)))[0]
    # NaN counts as a difference.
    largest = largest if np.isfinite(largest) else float("inf")
    return Difference(largest, allowed, int((here != there).sum()), float(p), len(truth))


def _note(
    job: Job, record: RunRecord, names: list[str], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return the facts that a user of the file must know."""
    entry = job.entry
    transform: Any = {"img_size": entry.img_size, **job.preprocessing.model_dump()}
    if entry.builder is not None:
        transform = f"that of builder {entry.builder}, if it has one, else {transform}"
    note = {
        "model": str(entry),
        "architecture": entry.architecture,
        "layer": entry.layer,
        "input": "images, float32 [n, 3, height, width], after the transform",
        "outputs": "scores [n, classes]: the largest is the predicted class; embedding [n, d]",
        "classes": names,
        "head": "the ridge probe of probe_accuracy, fitted to all images of the run; not the network's own classifier",
        "transform": transform,
        "versions": library_versions(),
    }
    if entry.builder is None and entry.layer is None:
        given = "".join(f", {name}={value!r}" for name, value in arguments.items())
        note["load .safetensors"] = (
            f"timm.create_model({entry.architecture!r}, checkpoint_path=FILE{given})"
        )
    return json.loads(json.dumps(note))


def _runtime(suffix: str) -> str:
    name = {".onnx": "onnxruntime", ".pt2": "torch", ".safetensors": "timm"}[suffix]
    return f"{name} {version(name)}"
