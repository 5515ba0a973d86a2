"""The monitor as a callback of Hugging Face's Trainer."""

from typing import Any

import torch

from .file import NUMBERS
from .monitor import RepresentationMonitor

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "TrainerMonitor needs Transformers: pip install 'dsmi-zoo[trainer]'"
    ) from error


class TrainerMonitor(TrainerCallback):
    """Measures the model of a Hugging Face Trainer while it trains, on the first process.

    It counts optimiser steps, records the numbers that the Trainer logs (loss, learning rate, ...), and continues from
    ``state.global_step`` when a checkpoint is resumed.

    Parameters
    ----------
    images, labels
        As for `RepresentationMonitor`; the images are the model's ``pixel_values``.
    **settings
        ``every``, ``out``, ``layer``, ``n`` and ``log`` of `RepresentationMonitor`.
    """

    def __init__(self, images: Any, labels: Any = None, **settings: Any) -> None:
        self.monitor: RepresentationMonitor | None = None
        self._images, self._labels, self._settings = images, labels, settings
        self._logged: dict[str, float] = {}

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: torch.nn.Module | None = None, **_: Any
    ) -> None:
        """Begin, or continue from the checkpoint's step."""
        if state.is_world_process_zero and model is not None:
            settings = {"start": state.global_step, **self._settings}
            self.monitor = RepresentationMonitor(model, self._images, self._labels, **settings)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keep the numbers for the next measurement."""
        for name, value in (logs or {}).items():
            if isinstance(value, int | float) and name not in NUMBERS:
                self._logged[name] = float(value)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count an optimiser step."""
        if self.monitor is not None:
            self.monitor.step(**self._logged)
            self._logged = {}

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the last state, and write everything."""
        if self.monitor is not None:
            self.monitor.close()
