"""Accuracies of a trained network on another data set, by a linear probe and by a short fine-tuning."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from dsmi_zoo._util.files import content_hash, write_json
from dsmi_zoo.data_catalog.models.entry import ModelEntry, TrainingRecipe

from ..plan.job import Outcome

VERSION = 1  # increase it when the same network gets other accuracies
PROBE_STEPS = 1000
Part = tuple[np.ndarray, np.ndarray]  # views and labels


@dataclass(frozen=True)
class TransferJob:
    """A trained network and another data set; its two accuracies are kept in the cache.

    ``weights`` is a file that a run has trained.
    """

    entry: ModelEntry
    weights: Path
    dataset: str
    cache: Path
    root: Path | None

    @property
    def name(self) -> str:
        """Display name."""
        assert self.entry.recipe is not None
        return f"{self.entry.model} of {self.entry.recipe.dataset} on {self.dataset}"

    @property
    def order(self) -> float:
        """Sort key: equal, because all jobs take about as long."""
        return 0.0

    @property
    def path(self) -> Path:
        """The file of the accuracies; the name of the weights' file is the hash of their recipe."""
        digest = content_hash(VERSION, self.weights.name, self.dataset)
        return self.cache / "transfer" / f"{digest}.json"

    @property
    def tuning(self) -> TrainingRecipe:
        """The recipe of the fine-tuning: one epoch on the 900 training images of the new data set."""
        assert self.entry.recipe is not None
        changed = {"dataset": self.dataset, "train_images": 900, "epochs": 1, "learning_rate": 1e-3}
        return self.entry.recipe.model_copy(update=changed)


def transfer_accuracies(job: TransferJob) -> dict[str, float] | None:
    """Read ``probe`` and ``fine_tuned``, in percent of the data set's test images; None if they are missing."""
    try:
        accuracies: dict[str, float] = json.loads(job.path.read_text())
    except (OSError, ValueError):
        return None
    return accuracies if set(accuracies) == {"probe", "fine_tuned"} else None


def compute_transfer(job: TransferJob) -> Outcome:
    """Probe and fine-tune a network, and keep both accuracies."""
    from ..embedding.train import reproducible
    from ..embedding.views import part_view
    from ..networks.timm import build_model

    began = perf_counter()
    entry, tuning = job.entry, job.tuning
    assert entry.img_size is not None
    assert entry.preprocessing is not None
    train, test = (
        part_view(job.cache, job.dataset, job.root, part, entry.img_size, entry.preprocessing)
        for part in ("train", "test")
    )
    with reproducible(tuning.seed):
        model = build_model(entry, job.weights)
        accuracies = {"probe": _probe(model, job, train, test)}
        accuracies["fine_tuned"] = _fine_tune(model, job, train, test)
    write_json(job.path, accuracies)
    return Outcome(job.path.stem, job.name, True, "", perf_counter() - began)


def _probe(model: Any, job: TransferJob, train: Part, test: Part) -> float:
    """Return the accuracy, in percent, of a logistic regression on the standardised penultimate embedding."""
    import torch
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from ..embedding.embed import embed

    assert job.entry.preprocessing is not None
    cpu = torch.device("cpu")
    seen, unseen = (
        embed(model, view, job.entry.preprocessing, cpu).values for view, _ in (train, test)
    )
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=PROBE_STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(seen, train[1])
    return 100 * float(probe.score(unseen, test[1]))


def _fine_tune(model: Any, job: TransferJob, train: Part, test: Part) -> float:
    """Return the accuracy, in percent, of the whole network with a new classifier after the short training."""
    import torch

    from ..embedding.embed import embed
    from ..embedding.train import fit

    model.reset_classifier(len(np.unique(train[1])))
    fit(model, job.entry, job.tuning, *train)
    assert job.entry.preprocessing is not None
    cpu = torch.device("cpu")
    predictions = embed(model.eval(), test[0], job.entry.preprocessing, cpu).predictions
    assert predictions is not None
    return 100 * float(np.mean(predictions == test[1]))
