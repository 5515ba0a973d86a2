"""The monitor as a callback of Hugging Face's Trainer."""

from numbers import Real
from typing import Any

import torch

from .file import NUMBERS
from .monitor import RepresentationMonitor, last_values
from .ranks import Ranks

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "TrainerMonitor needs Transformers: pip install 'dsmi-zoo[trainer]'"
    ) from error


class TrainerMonitor(TrainerCallback):
    """Callback that measures a Hugging Face Trainer's model in training, on rank 0 (a sharded model: on all ranks).

    It counts optimiser steps, and continues from ``state.global_step`` when a checkpoint is resumed. The row of a step
    has the numbers that the Trainer logs at this step (loss, learning rate, ``eval_loss``, ...), unchanged; where it
    logs nothing, the row has none, so make ``every`` a multiple of ``logging_steps``.

    The values are added to ``state.log_history`` and, as ``eval_dsmi_z_y`` and so on, to an evaluation's metrics: for
    later callbacks and for ``metric_for_best_model``, which makes each evaluation measure if it names one of them.

    Parameters
    ----------
    images, labels
        As for `RepresentationMonitor`; the images are the model's ``pixel_values``.
    **settings
        ``every``, ``out``, ``layer``, ``n``, ``log`` and ``start`` of `RepresentationMonitor`.
    """

    def __init__(self, images: Any, labels: Any = None, **settings: Any) -> None:
        self.monitor: RepresentationMonitor | None = None
        self._images, self._labels, self._settings = images, labels, settings
        self._logged: dict[int, dict[str, float]] = {}  # by the monitor's steps
        self._start = self._offset = (
            0  # the monitor's first step, and how far it is ahead of the Trainer's
        )
        self._is_training = False
        self._ranks: Ranks | None = None
        self._values: dict[str, float] = {}
        self._shared_at = -1  # the step of these values

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: torch.nn.Module | None = None, **_: Any
    ) -> None:
        """Start the monitor, or continue from the checkpoint's step."""
        if model is None:
            return
        self._ranks = Ranks.of_copies()
        if self._ranks is None and not state.is_world_process_zero:
            return
        self._values, self._shared_at = {}, -1
        settings = {"start": state.global_step, **self._settings}
        self.monitor = RepresentationMonitor(model, self._images, self._labels, **settings)
        self.monitor.holds_rows = True  # the Trainer logs a step's numbers after its end
        self._logged, self._start = {}, settings["start"]
        self._offset = self._start - state.global_step
        self._is_training = True
        if not self.monitor.is_idle:
            self._warn_of_rows_without_loss(args.logging_strategy, state.logging_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Complete the rows of earlier steps, whose numbers have all been logged."""
        self._complete_rows()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keep the numbers for the row of this step, but not the summary of the whole training."""
        if not self._is_training or "train_runtime" in (logs or {}):
            return
        of_step = self._logged.setdefault(state.global_step + self._offset, {})
        for name, value in (logs or {}).items():
            if isinstance(value, Real) and name not in NUMBERS:
                of_step[name] = float(value)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count an optimiser step."""
        if self.monitor is not None:
            self.monitor.step()
            if self.monitor.steps % self.monitor.every == 0:
                self._share(state)
            self._measure_if_last(state, control)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
    ) -> None:
        """Add the values to an evaluation's metrics; measure the last state before the Trainer loads its best one."""
        if self.monitor is None or not self._is_training:
            return
        self._measure_if_last(state, control)
        if str(args.metric_for_best_model).removeprefix("eval_") in self.monitor.shown:
            self._measure(state)
        if metrics is not None:
            metrics |= {f"eval_{name}": value for name, value in self._values.items()}

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the last state before the Trainer loads its best one."""
        self._measure_if_last(state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the last state, and write everything."""
        if self.monitor is None or not self._is_training:
            return
        has_loaded_best = args.load_best_model_at_end and state.best_model_checkpoint is not None
        if not has_loaded_best:
            self._measure(state)
        elif self.monitor.lags:
            words = "the last state was not measured, because the Trainer has loaded its best model"
            self.monitor.warn_once("best", words)
        self._complete_rows()
        self.monitor.finish()
        self._is_training = False

    def _measure_if_last(self, state: Any, control: Any) -> None:
        if self.monitor is not None and self._is_training and control.should_training_stop:
            self._measure(state)

    def _measure(self, state: Any) -> None:
        """Measure the current state, unless it has been measured."""
        assert self.monitor is not None
        if self._shared_at < self.monitor.steps > self._start:
            self.monitor.measure_now()
            self._share(state)

    def _share(self, state: Any) -> None:
        """Store the last values on every process, and add them to the Trainer's history."""
        assert self.monitor is not None
        self._values, self._shared_at = last_values(self.monitor, self._ranks), self.monitor.steps
        measured_at = self._values.pop("step", None)
        if measured_at == self.monitor.steps:  # not when this step could not be measured
            entry = {**self._values, "epoch": state.epoch, "step": state.global_step}
            state.log_history.append(entry)

    def _complete_rows(self) -> None:
        if self.monitor is not None:
            self.monitor.send(self._logged)
            # The row of the first step waits for the first measurement.
            self._logged = {
                step: of_step for step, of_step in self._logged.items() if step == self._start
            }

    def _warn_of_rows_without_loss(self, strategy: Any, logging_steps: int) -> None:
        assert self.monitor is not None
        every = self.monitor.every
        if strategy == "steps" and every % logging_steps:
            words = f"the Trainer logs every {logging_steps} steps"
        elif strategy == "epoch":
            words = "the Trainer logs at the end of an epoch"
        else:
            return
        self.monitor.warn_once(
            "apart", f"{words}; rows of other steps (every={every}) have no loss"
        )
