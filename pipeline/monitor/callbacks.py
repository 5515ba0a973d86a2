"""The monitor as a callback of Lightning and of Hugging Face's Trainer."""

from numbers import Real
from typing import Any

import torch

from dsmi_zoo._util.errors import InputError

from .file import NUMBERS
from .monitor import RepresentationMonitor
from .ranks import Ranks, sharding_of

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "LightningMonitor needs Lightning: pip install 'dsmi-zoo[lightning]'"
    ) from error


class LightningMonitor(Callback):
    """Measures a Lightning module while it is fitted, on the process of rank 0 (of a sharded module, on all).

    It counts optimiser steps, however many batches are accumulated, and continues from ``trainer.global_step`` when a
    checkpoint is resumed. It records the loss that ``training_step`` returns: the mean over the batches, accumulated
    ones too, since the last measurement. The measurements go to the trainer's loggers, as ``dsmi-zoo/dsmi_z_y`` and so
    on, unless ``log`` is given. ``trainer.callback_metrics`` has the last values on every process, as ``dsmi_z_y`` and
    so on: for EarlyStopping and ModelCheckpoint. If one of them waits for such a value, the end of the first epoch is
    measured in any case.

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
        """Begin, or continue from the checkpoint's step."""
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
        """Return whether a callback of the trainer's waits for a value of ours."""
        assert self.monitor is not None
        awaited = (getattr(one, "monitor", None) for one in trainer.callbacks)  # type: ignore[attr-defined]
        return any(name in self.monitor.shown for name in awaited if isinstance(name, str))

    def _share(self, trainer: Trainer) -> None:
        """Give the last values to the other callbacks, on every process."""
        assert self.monitor is not None
        self._values = _shared(self.monitor, self._ranks)
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
        """Keep what was measured."""
        if self.monitor is not None:
            self.monitor.__exit__(type(exception), exception, None)


def _shared(monitor: RepresentationMonitor, ranks: Ranks | None) -> dict[str, float]:
    """Return what was measured last, without times and the caller's numbers; on every process what rank 0 has."""
    last = monitor.last if ranks is None else ranks.from_first(monitor.last)
    return {name: value for name, value in (last or {}).items() if name in ("step", *monitor.shown)}


def _loss(trainer: Trainer, pl_module: LightningModule, outputs: Any) -> dict[str, torch.Tensor]:
    """Return the loss as ``training_step`` returned it, if it did."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    if not isinstance(loss, torch.Tensor):
        return {}
    # With automatic optimisation Lightning has divided it, also in a last accumulation that is cut short.
    divided_by = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
    return {"loss": loss.detach() * divided_by}


try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "TrainerMonitor needs Transformers: pip install 'dsmi-zoo[trainer]'"
    ) from error


class TrainerMonitor(TrainerCallback):
    """Measures the model of a Hugging Face Trainer while it trains, on the first process (of a sharded model, on all).

    It counts optimiser steps, and continues from ``state.global_step`` when a checkpoint is resumed. The row of a step
    has the numbers that the Trainer logs at this step (loss, learning rate, ``eval_loss``, ...), as it logs them; where
    it logs nothing, the row has none, so let ``every`` be a multiple of ``logging_steps``.

    The values are in ``state.log_history``, and as ``eval_dsmi_z_y`` and so on in the metrics of an evaluation, for
    ``metric_for_best_model`` (then each evaluation measures) and for callbacks that come after this one.

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
        """Begin, or continue from the checkpoint's step."""
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
        """Complete the rows of earlier steps, of which everything is logged now."""
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
        """Measure the present state, unless it has been."""
        assert self.monitor is not None
        if self._shared_at < self.monitor.steps > self._start:
            self.monitor.measure_now()
            self._share(state)

    def _share(self, state: Any) -> None:
        """Keep the last values, on every process, and put them into the Trainer's history."""
        assert self.monitor is not None
        self._values, self._shared_at = _shared(self.monitor, self._ranks), self.monitor.steps
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
