"""The studies of trainings: which networks are trained how, and which of their epochs are measured."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import get_args

from ..engine.outcome import Outcome
from .trajectory import Regime, Trajectory, train_trajectory

ARCHITECTURE = "test_resnet"  # of timm: convolutions and batch norm, half a million parameters
# By default timm's residual branches begin at zero, and their convolutions would not count.
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
        """Trainings on a data set by each regime and seed."""
        return [
            self._trajectory(dataset, regime=regime, seed=seed, checkpoints=self.checkpoints)
            for regime in regimes
            for seed in range(self.seeds)
        ]

    def initial_states(self, dataset: str) -> list[Trajectory]:
        """Networks before training, by the standard deviation of their convolutions' weights."""
        return [
            self._trajectory(
                dataset, convolution_std=std, seed=seed, checkpoints=(0,), model_kwargs=WHOLE
            )
            for std in self.standard_deviations
            for seed in range(self.initial_seeds)
        ]

    def from_initial_states(self, dataset: str, stds: tuple[float, ...]) -> list[Trajectory]:
        """Trainings from such states."""
        return [
            self._trajectory(
                dataset,
                convolution_std=std,
                seed=seed,
                checkpoints=self.initial_checkpoints,
                model_kwargs=WHOLE,
            )
            for std in stds
            for seed in range(self.seeds)
        ]

    def _trajectory(self, dataset: str, **given: object) -> Trajectory:
        fixed: dict[str, object] = {
            "dataset": dataset,
            "architecture": ARCHITECTURE,
            "train_images": self.train_images,
            "batch_size": 50,
            "learning_rate": 2e-3,
            "weight_decay": 0.01,
        }
        checkpoints = given["checkpoints"]
        assert isinstance(checkpoints, tuple)
        return Trajectory.model_validate(fixed | given | {"epochs": checkpoints[-1]})


@dataclass(frozen=True)
class TrainingJob:
    """One training, and where it finds its images and leaves its checkpoints."""

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
