"""The studies of trainings: networks, recipes, and the epochs that are measured."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

from ..engine.outcome import Outcome
from .trajectory import Regime, Trajectory, train_trajectory

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
        """List the trainings from such states."""
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
        """For people."""
        return self.recipe.name

    @property
    def order(self) -> float:
        """Sorts the longest first."""
        return self.recipe.order


def compute_training(job: TrainingJob) -> Outcome:
    """Train, keeping checkpoints."""
    began = perf_counter()
    train_trajectory(job.recipe, job.cache, job.root)
    return Outcome(job.name, job.name, True, "", perf_counter() - began)
