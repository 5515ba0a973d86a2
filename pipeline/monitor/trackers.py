"""Trackers that log a monitor's measurements to Weights & Biases and MLflow."""

from collections import deque
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from dsmi_zoo._util.errors import InputError

PREFIX = "dsmi-zoo/"
TRACKERS = ("wandb", "mlflow", "tensorboard")


class Tracker:
    """Base class of logs that are closed at the end of the training."""

    def check(self) -> None:
        """Raise InputError before training for anything that would fail later."""

    def __call__(self, numbers: Mapping[str, float], step: int) -> None:
        """Log the known values of a measurement."""
        raise NotImplementedError

    def close(self) -> None:
        """Log the pending measurements."""


class WandbTracker(Tracker):
    """Tracker that adds measurements to the rows of the active Weights & Biases run, with the step ``dsmi-zoo/step``.

    The run's own step belongs to the caller and must not go back, so a measurement is added to the caller's current row
    without committing it. A row holds only one measurement; further ones wait for the next rows, or for `close`.
    """

    def __init__(self) -> None:
        self._wandb = _module("wandb")
        self._waiting: deque[dict[str, float]] = deque()
        self._run: Any = None
        self._row = -1  # the run's last row that has a measurement

    def check(self) -> None:
        """Refuse a training without an active run; trainers' own loggers have one before their first step."""
        if self._wandb.run is None:
            raise InputError('log="wandb", but there is no active run; call wandb.init() first')

    def __call__(self, numbers: Mapping[str, float], step: int) -> None:
        """Add a measurement to the current row, or queue it."""
        self._waiting.append(_prefixed({**numbers, "step": step}))
        if self._has_run() and self._run.step > self._row:
            self._add()

    def close(self) -> None:
        """Log the pending measurements, one per row."""
        while self._waiting and self._has_run():
            if self._run.step <= self._row:
                self._run.log(self._waiting.popleft(), step=self._row + 1)
                self._row += 1
            else:
                self._add()

    def _add(self) -> None:
        self._row = self._run.step
        self._run.log(self._waiting.popleft(), commit=False)

    def _has_run(self) -> bool:
        run = self._wandb.run
        if run is None:
            raise InputError("there is no active run of wandb; call wandb.init() before")
        if run is not self._run:
            self._run, self._row = run, -1
            run.define_metric(f"{PREFIX}step", hidden=True)
            run.define_metric(f"{PREFIX}*", step_metric=f"{PREFIX}step")
        return True


class MlflowTracker(Tracker):
    """Tracker that logs measurements to MLflow's active run at the training's steps."""

    def __init__(self) -> None:
        self._mlflow = _module("mlflow")

    def __call__(self, numbers: Mapping[str, float], step: int) -> None:
        """Log a measurement; MLflow begins a run if there is none."""
        self._mlflow.log_metrics(_prefixed(numbers), step=step)


def tracker(log: Any) -> Callable[[dict[str, float], int], Any] | None:
    """Return the function to log measurements with, by the setting ``log``; None for TensorBoard or nothing.

    ``wandb.log`` means ``"wandb"``: called directly with the training's steps, it would drop values whose step is
    before the run's.

    Raises
    ------
    InputError
        For another name or type, or when that library is not installed.
    """
    if log is None or log == "tensorboard":
        return None
    if log == "wandb" or _is_of_wandb(log):
        return WandbTracker()
    if log == "mlflow":
        return MlflowTracker()
    if callable(log):
        function: Callable[[dict[str, float], int], Any] = log
        return function
    raise InputError(
        f"log={log!r}: pass {', '.join(map(repr, TRACKERS))}, or a function(numbers, step)"
    )


def _is_of_wandb(log: Any) -> bool:
    module = str(getattr(log, "__module__", ""))
    return callable(log) and (module == "wandb" or module.startswith("wandb."))


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise InputError(f'log="{name}" needs it: pip install {name}') from None


def _prefixed(numbers: Mapping[str, float]) -> dict[str, float]:
    return {f"{PREFIX}{name}": value for name, value in numbers.items()}
