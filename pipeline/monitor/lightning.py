"""The monitor as a callback of Lightning."""

from typing import Any

import torch

from .monitor import RepresentationMonitor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "LightningMonitor needs Lightning: pip install 'dsmi-zoo[lightning]'"
    ) from error


class LightningMonitor(Callback):
    """Measures a Lightning module while it is fitted, on the process of rank 0.

    It counts optimiser steps, however many batches are accumulated, records the loss that ``training_step`` returns,
    and continues from ``trainer.global_step`` when a checkpoint is resumed. The measurements go to the trainer's
    loggers, as ``dsmi-zoo/dsmi_z_y`` and so on, unless ``log`` is given.

    Parameters
    ----------
    images, labels
        As for `RepresentationMonitor`.
    network
        The name of the submodule to measure; None is the Lightning module itself, whose ``forward`` takes images.
    **settings
        ``every``, ``out``, ``layer``, ``n`` and ``log`` of `RepresentationMonitor`.
    """

    def __init__(
        self, images: Any, labels: Any = None, *, network: str | None = None, **settings: Any
    ) -> None:
        self.monitor: RepresentationMonitor | None = None
        self._images, self._labels = images, labels
        self._network, self._settings = network, settings
        self._counted = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or continue from the checkpoint's step."""
        if not trainer.is_global_zero:
            return

        def log(numbers: dict[str, float], step: int) -> None:
            named = {f"dsmi-zoo/{name}": value for name, value in numbers.items()}
            for logger in trainer.loggers:
                logger.log_metrics(named, step)

        model = pl_module if self._network is None else pl_module.get_submodule(self._network)
        self._counted = trainer.global_step
        self.monitor = RepresentationMonitor(
            model, self._images, self._labels, start=self._counted, **{"log": log, **self._settings}
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the optimiser's steps since the last batch, zero while gradients are accumulated."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        numbers = {"loss": loss} if isinstance(loss, torch.Tensor) else {}
        while self.monitor is not None and self._counted < trainer.global_step:
            self._counted += 1
            self.monitor.step(**numbers)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the last state, and write everything."""
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Keep what was measured."""
        if self.monitor is not None:
            self.monitor.__exit__(type(exception), exception, None)
