"""One training whose checkpoints are kept as models, which an ordinary run measures from a catalogue."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from pydantic import Field

from dsmi_zoo._util.files import content_hash, damage_problem, write_checksummed, write_text
from dsmi_zoo.data_catalog.models.entry import Preprocessing, TrainingRecipe
from dsmi_zoo.data_catalog.models.registry import PREPROCESSING

from ..plan.job import Outcome

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

TEMPERATURE, PROJECTED = 0.5, 64  # of the contrastive loss; dimensions of its projections

IMG_SIZE = 32
VERSION = 2  # increase it when a training produces other weights for the same recipe
Regime = Literal["supervised", "contrastive", "shuffled labels"]


class Trajectory(TrainingRecipe):
    """Settings of a training, and the epochs to keep; epoch 0 is the network before training.

    ``convolution_std``, if given, draws the initial weights of every convolution from a normal distribution.
    """

    architecture: str
    model_kwargs: dict[str, Any] = Field(default={"num_classes": 10})
    regime: Regime = "supervised"
    checkpoints: tuple[int, ...]
    convolution_std: float | None = None

    @property
    def name(self) -> str:
        """Display name."""
        std = "" if self.convolution_std is None else f" std {self.convolution_std:g}"
        return f"{self.dataset} {self.regime}{std} seed {self.seed}"

    @property
    def order(self) -> float:
        """Sort key: the longest trainings come first."""
        return -self.epochs * self.train_images * (4.0 if self.regime == "contrastive" else 1.0)

    def checkpoint(self, cache: Path, epoch: int) -> Path:
        """Return the path of the weights after an epoch."""
        folder = cache / "trajectories" / content_hash(VERSION, self.model_dump())
        return folder / f"epoch-{epoch:04d}.safetensors"

    def is_done(self, cache: Path) -> bool:
        """Return whether all checkpoints exist and are undamaged."""
        return not any(damage_problem(self.checkpoint(cache, epoch)) for epoch in self.checkpoints)


def train_trajectory(recipe: Trajectory, cache: Path, root: Path | None) -> None:
    """Train from the beginning, and store in ``cache`` the checkpoints that are missing there.

    Their metadata hold, as JSON, the accuracies in percent: ``top1`` on the test part, and ``train_accuracy`` on the
    training images with the labels of the training. Contrastive training, whose classifier learns nothing, has neither.
    """
    import safetensors.torch
    import timm
    import torch

    from dsmi_zoo.data_catalog.models.timm_registry import family_of

    from ..embedding.embed import embed, normalised
    from ..embedding.train import descend, estimate_batch_norms, reproducible, stratified
    from ..embedding.views import part_view

    parts = {
        part: part_view(cache, recipe.dataset, root, part, IMG_SIZE, PREPROCESSING)
        for part in ("train", "test")
    }
    view, labels = parts["train"]
    chosen = stratified(labels, recipe.train_images, recipe.seed)
    view, labels = np.array(view[chosen]), labels[chosen]
    if recipe.regime == "shuffled labels":
        labels = np.random.default_rng(recipe.seed).permutation(labels)

    inputs, cpu = normalised(torch.from_numpy(view), PREPROCESSING), torch.device("cpu")

    def keep(epoch: int) -> None:
        path = recipe.checkpoint(cache, epoch)
        if epoch not in recipe.checkpoints or not damage_problem(path):
            return
        estimate_batch_norms(model, inputs)  # training itself never reads the estimates
        facts: dict[str, Any] = {"epoch": epoch, "family": family_of(recipe.architecture)}
        if recipe.regime != "contrastive":
            measured_on = {"train_accuracy": (view, labels), "top1": parts["test"]}
            for name, (images, truth) in measured_on.items():
                predictions = embed(model.eval(), images, PREPROCESSING, cpu).predictions
                assert predictions is not None
                facts[name] = 100 * float(np.mean(predictions == truth))
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        # A single entry, because several would have a random order, and the file's hash enters its rows' identity.
        content = safetensors.torch.save(state, metadata={"facts": json.dumps(facts)})
        write_checksummed(path, lambda file: file.write(content))

    log.debug("training %s on %s images of %s", recipe.name, len(labels), recipe.dataset)
    with reproducible(recipe.seed):
        model = timm.create_model(recipe.architecture, pretrained=False, **recipe.model_kwargs)
        if recipe.convolution_std is not None:
            for module in model.modules():
                if isinstance(module, torch.nn.Conv2d):
                    torch.nn.init.normal_(module.weight, 0, recipe.convolution_std)
        keep(0)
        if recipe.regime == "contrastive":
            trained, loss_of = contrastive(model, torch.from_numpy(view), PREPROCESSING)
        else:
            trained, targets = model, torch.from_numpy(labels)

            def loss_of(batch: torch.Tensor) -> torch.Tensor:
                return torch.nn.functional.cross_entropy(model(inputs[batch]), targets[batch])

        descend(trained, recipe, len(labels), loss_of, keep)


def contrastive(
    model: Any, images: "torch.Tensor", preprocessing: Preprocessing
) -> "tuple[torch.nn.Module, Callable[[torch.Tensor], torch.Tensor]]":
    """Return the modules to train, which are the model and a projection head, and the loss of a batch of indices.

    Views are torchvision's random crops, rotations and changes of colour, without mirroring, which would spoil digits.
    The loss is NT-Xent between the projections of the pre-logits.

    Parameters
    ----------
    images : uint8 [n, h, w, 3]

    References
    ----------
    Chen et al., A simple framework for contrastive learning of visual representations (arXiv 2002.05709).
    """
    import torch
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
    from torchvision.transforms import v2

    from ..embedding.embed import normalised

    pixels = images.permute(0, 3, 1, 2).contiguous()
    side = pixels.shape[-1]
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(0.5, 1), antialias=True),
            v2.RandomRotation(15),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
        ]
    )
    d = model.head_hidden_size
    head = torch.nn.Sequential(
        torch.nn.Linear(d, d), torch.nn.ReLU(), torch.nn.Linear(d, PROJECTED)
    )
    loss = SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))

    def views(batch: torch.Tensor) -> torch.Tensor:
        drawn = torch.stack([augment(pixels[number]) for number in batch])  # one draw per image
        return normalised(drawn.permute(0, 2, 3, 1), preprocessing)

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        both = torch.cat([views(batch), views(batch)])
        projected = head(model.forward_head(model.forward_features(both), pre_logits=True))
        first, second = projected.chunk(2)
        return loss(first, second)

    return torch.nn.ModuleList([model, head]), loss_of


def write_catalog(path: Path, recipes: Iterable[Trajectory], cache: Path) -> None:
    """Write the checkpoints of finished trainings as a catalogue, one row each."""
    import safetensors

    rows = []
    for recipe in recipes:
        std = recipe.convolution_std
        for epoch in recipe.checkpoints:
            checkpoint = recipe.checkpoint(cache, epoch)
            with safetensors.safe_open(checkpoint, framework="np") as file:
                facts = json.loads(file.metadata()["facts"])
            rows.append(
                {
                    "model": f"{recipe.name} epoch {epoch}",
                    "architecture": recipe.architecture,
                    "family": facts.get("family"),
                    "checkpoint": str(checkpoint),
                    "model_kwargs": json.dumps(recipe.model_kwargs),
                    "img_size": IMG_SIZE,
                    "group": recipe.regime if std is None else f"std {std:g}",
                    "top1": facts.get("top1"),
                    "train_accuracy": facts.get("train_accuracy"),
                    "epoch": epoch,
                    "training_seed": recipe.seed,
                    "convolution_std": std,
                    "crop_pct": PREPROCESSING.crop_pct,
                    "interpolation": PREPROCESSING.interpolation,
                    "mean": " ".join(map(str, PREPROCESSING.mean)),
                    "std": " ".join(map(str, PREPROCESSING.std)),
                }
            )
    write_text(path, pd.DataFrame(rows).to_csv(index=False))


ARCHITECTURE = "test_resnet"  # of timm: convolutions and batch norm, half a million parameters
# By default timm initialises residual branches to zero, which would hide their convolutions.
WHOLE = {"num_classes": 10, "zero_init_last": False}
STANDARD_DEVIATIONS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1)


@dataclass(frozen=True)
class TrainingStudy:
    """The size of the studies of trainings; ``initial_seeds`` are those of networks that are not trained."""

    seeds: int = 5
    train_images: int = 900
    checkpoints: tuple[int, ...] = (0, 1, 2, 3, 5, 8, 12, 20)
    standard_deviations: tuple[float, ...] = STANDARD_DEVIATIONS
    initial_seeds: int = 3
    initial_checkpoints: tuple[int, ...] = (0, 1, 2, 3, 5, 8, 12)

    def dynamics(
        self, dataset: str, regimes: tuple[Regime, ...] = get_args(Regime)
    ) -> list[Trajectory]:
        """List the trainings on a data set, by regime and seed."""
        return [
            self._trajectory(dataset, self.checkpoints, seed, regime=regime)
            for regime in regimes
            for seed in range(self.seeds)
        ]

    def initial_states(self, dataset: str) -> list[Trajectory]:
        """List networks before training, by the standard deviation of their convolutions' weights."""
        return [
            self._trajectory(dataset, (0,), seed, convolution_std=std, model_kwargs=WHOLE)
            for std in self.standard_deviations
            for seed in range(self.initial_seeds)
        ]

    def from_initial_states(self, dataset: str, stds: tuple[float, ...]) -> list[Trajectory]:
        """List the trainings from initial states with these standard deviations."""
        checkpoints = self.initial_checkpoints
        return [
            self._trajectory(dataset, checkpoints, seed, convolution_std=std, model_kwargs=WHOLE)
            for std in stds
            for seed in range(self.seeds)
        ]

    def _trajectory(
        self, dataset: str, checkpoints: tuple[int, ...], seed: int, **varied: Any
    ) -> Trajectory:
        return Trajectory(
            dataset=dataset,
            architecture=ARCHITECTURE,
            train_images=self.train_images,
            batch_size=50,
            learning_rate=2e-3,
            weight_decay=0.01,
            checkpoints=checkpoints,
            epochs=checkpoints[-1],
            seed=seed,
            **varied,
        )


@dataclass(frozen=True)
class TrainingJob:
    """One training, with the folders of its checkpoints and images."""

    recipe: Trajectory
    cache: Path
    root: Path | None

    @property
    def name(self) -> str:
        """Display name."""
        return self.recipe.name

    @property
    def order(self) -> float:
        """Sort key: the longest trainings come first."""
        return self.recipe.order


def compute_training(job: TrainingJob) -> Outcome:
    """Run a training and store its checkpoints."""
    began = perf_counter()
    train_trajectory(job.recipe, job.cache, job.root)
    return Outcome(job.name, job.name, True, "", perf_counter() - began)
