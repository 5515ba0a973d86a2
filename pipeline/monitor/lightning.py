"""The monitor as a callback of Lightning."""

from typing import Any

import torch

from dsmi_zoo._util.errors import InputError

from .monitor import RepresentationMonitor, last_values
from .ranks import Ranks, sharding_of

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "LightningMonitor needs Lightning: pip install 'dsmi-zoo[lightning]'"
    ) from error


class LightningMonitor(Callback):
    """Callback that measures a Lightning module during fitting, on rank 0 (a sharded module: on all ranks).

    It counts optimiser steps, however many batches are accumulated, and continues from ``trainer.global_step`` when a
    checkpoint is resumed. It records the loss that ``training_step`` returns, averaged over all batches since the last
    measurement, including accumulated ones. The measurements go to the trainer's loggers, as ``dsmi-zoo/dsmi_z_y`` and
    so on, unless ``log`` is given. ``trainer.callback_metrics`` has the last values on every process, as ``dsmi_z_y``
    and so on, for EarlyStopping and ModelCheckpoint. If one of them monitors such a value, the end of the first epoch
    is always measured.

    Parameters
    ----------
    images, labels
        As for `RepresentationMonitor`.
    network
        The name of the submodule to measure; None is the Lightning module itself, whose ``forward`` takes images.
    **settings
        ``every``, ``out``, ``layer``, ``n``, ``log`` and ``start`` of `RepresentationMonitor`.
    """

    def __init__(
        self, images: Any, labels: Any = None, *, network: str | None = None, **settings: Any
    ) -> None:
        self.monitor: RepresentationMonitor | None = None
        self._images, self._labels = images, labels
        self._network, self._settings = network, settings
        self._counted = 0
        self._values: dict[str, float] = {}
        self._ranks: Ranks | None = None
        self._accumulated: list[dict[str, torch.Tensor]] = []  # the losses of a step so far

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the monitor, or continue from the checkpoint's step."""
        whole = trainer.strategy.model or pl_module
        sharding = sharding_of(whole)
        if sharding is not None and self._network is not None:
            raise InputError(
                f"network={self._network!r} is part of a sharded network ({sharding}), which runs only as a whole; "
                "leave network out and name a layer"
            )

        def log(numbers: dict[str, float], step: int) -> None:
            named = {f"dsmi-zoo/{name}": value for name, value in numbers.items()}
            for logger in trainer.loggers:
                logger.log_metrics(named, step)

        model = pl_module if sharding is None else whole
        if self._network is not None:
            model = pl_module.get_submodule(self._network)
        self._counted, self._accumulated = trainer.global_step, []
        settings = {"log": log, "start": self._counted, **self._settings}
        self._ranks, self._values = Ranks.of_copies(), {}
        self.monitor = RepresentationMonitor(model, self._images, self._labels, **settings)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss, and count the optimiser's steps since the last batch, zero during accumulation."""
        if self.monitor is None:
            return
        numbers = _loss(trainer, pl_module, outputs)
        self.monitor.record(**numbers)
        self._accumulated.append(numbers)
        measured_at = self.monitor.steps
        while self._counted < trainer.global_step:
            if not self.monitor.has_numbers:  # the step of another optimiser, with the same batches
                for again in self._accumulated:
                    self.monitor.record(**again)
            self._counted += 1
            self.monitor.step()
        every = self.monitor.every
        if self.monitor.steps > measured_at:
            self._accumulated = []
        if self.monitor.steps // every > measured_at // every:
            self._share(trainer)
        elif trainer.is_last_batch and not self._values and self._is_awaited(trainer):
            self.monitor.measure_now()
            self._share(trainer)

    def _is_awaited(self, trainer: Trainer) -> bool:
        """Return whether another callback of the trainer monitors one of our values."""
        assert self.monitor is not None
        awaited = (getattr(one, "monitor", None) for one in trainer.callbacks)  # type: ignore[attr-defined]
        return any(name in self.monitor.shown for name in awaited if isinstance(name, str))

    def _share(self, trainer: Trainer) -> None:
        """Give the last values to the other callbacks, on every process."""
        assert self.monitor is not None
        self._values = last_values(self.monitor, self._ranks)
        self._values.pop("step", None)
        tensors = {name: torch.tensor(value) for name, value in self._values.items()}
        trainer.callback_metrics.update(tensors)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the last state, and write everything."""
        if self.monitor is not None:
            self.monitor.close()
            self._share(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the measurements so far."""
        if self.monitor is not None:
            self.monitor.__exit__(type(exception), exception, None)


def _loss(trainer: Trainer, pl_module: LightningModule, outputs: Any) -> dict[str, torch.Tensor]:
    """Return the loss as ``training_step`` returned it; empty if it returned none."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    if not isinstance(loss, torch.Tensor):
        return {}
    # With automatic optimisation Lightning has divided the loss, even in a shortened last accumulation.
    divided_by = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
    return {"loss": loss.detach() * divided_by}
