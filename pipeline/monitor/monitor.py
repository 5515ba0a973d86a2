"""Measure a network while it trains: DSE and DSMI of one layer on held-out images, every so many steps."""

import contextlib
import html
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.hashing import array_sha256

from ..measures.catalog import DIAGNOSTICS, MEASURES
from ..measures.core.context import MeasureContext
from ..measures.core.registry import Value
from ..measures.core.settings import MeasureSettings
from ..measures.run import values_of
from ..networks.forward import activations, undisturbed
from ..networks.layers import check_layer, unwrapped
from .file import NUMBERS, SIMPLE_SCORES, monitor_path, read_monitor, write_monitor
from .images import (
    FEWEST_PER_CLASS,
    checked_images,
    clusters_of,
    drawn_from,
    evenly_interleaved,
    tell_of_small_classes,
    whole_number,
)

BUDGET = 0.05  # of the training time
# For the measurements that return; the rest is for what is done once, and for slower moments.
SHARE = 0.4 * BUDGET
MOST = 500  # images by default: more hardly change a curve, and eigenvalues cost their cube
SHOWN = ("dse_z", "dsmi_z_y", "dsmi_z_x", *(one.name for one in SIMPLE_SCORES))


class RepresentationMonitor:
    """DSE(Z), DSMI(Z;Y) and DSMI(Z;X) of a layer, every ``every`` optimiser steps, into ``OUT/monitor.parquet``.

    Training goes on as if it were not there: no gradients, and every module's mode and all random states (torch's,
    the accelerators', NumPy's, Python's) are restored, so the weights are bit for bit the same. The state before the
    first step is measured too, and the last one on ``close``. ``dsmi-zoo report --out DIR`` draws the curves;
    TensorBoard gets them as well if it is installed.

    Parameters
    ----------
    model
        Any module, also inside DataParallel, DistributedDataParallel (then on one process only) or torch.compile.
    images : float tensor or array [m, c, h, w]
        Held-out images, as the model takes them: normalised.
        Or a data set of pairs (image, label), or the loader of one, from which up to 500 are drawn, seeded.
    labels : [m] or None
        Their classes, at least two; none beside a data set.
    every
        Optimiser steps from one measurement to the next.
    out
        The folder; one for each training.
    layer
        A name of ``model.named_modules()``; None is the penultimate layer (see `dsmi_zoo.pipeline.networks.layers.forward`).
    n
        How many of the images to measure, as evenly from the classes as can be. None lets the first measurement choose
        as many, up to 500 (or three per class), as keep the cost under 5% of the training time (what is done once
        included, from about five measurements on); then it stays.
    log
        Called after each measurement as ``log(numbers, step)`` with a dict of what is known: ``wandb.log`` and
        ``mlflow.log_metrics`` fit as they are. What it raises is told once and ends no training.
    start
        The step from which a training continues; measurements after it are dropped, n and all else must be as before.

    Raises
    ------
    InputError
        For images, labels, a layer or a number that do not fit, and for a folder that holds another training.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        images: "torch.Tensor | np.ndarray | Dataset[Any] | DataLoader[Any]",
        labels: torch.Tensor | np.ndarray | None = None,
        *,
        every: int = 100,
        out: str | Path,
        layer: str | None = None,
        n: int | None = None,
        log: Callable[[dict[str, float], int], Any] | None = None,
        start: int = 0,
    ) -> None:
        began = perf_counter()
        self.model, self.layer, self.out = model, layer, Path(out)
        if self.out.is_file():
            raise InputError(f"out: {self.out} is a file; name a folder")
        self.every, self._n = whole_number(every, "every", 1), n
        self.steps = self._measured_at = whole_number(start, "start", 0)
        if isinstance(images, Dataset | DataLoader):
            if labels is not None:
                raise InputError("labels come with the data set; pass it alone")
            images, labels = drawn_from(images, MOST, FEWEST_PER_CLASS)
        images, labels = checked_images(images, labels)
        tell_of_small_classes(labels)
        check_layer(model, layer)
        self._least = max(2, FEWEST_PER_CLASS * len(np.unique(labels)))
        if n is not None and not 2 <= whole_number(n, "n", 2) <= len(labels):
            raise InputError(
                f"n={n} images are to be measured, but there are {len(labels)}; give at most so many"
            )
        self._most = min(len(labels), max(MOST, self._least)) if n is None else n
        order = evenly_interleaved(labels)[: self._most]
        self._images, self._labels = images[torch.from_numpy(order)].float(), labels[order]
        self._clusters: np.ndarray | None = None
        self._rows: list[dict[str, Any]] = []
        self._facts: dict[str, Any] = {
            "layer": layer,
            "every": self.every,
            "images_sha256": array_sha256(images.float().numpy()),
            "labels_sha256": array_sha256(labels),
        }
        self._log = log
        self._told = False  # that the log failed
        self._given: dict[str, list[Any]] = {}  # the caller's numbers since the last measurement
        self._training = self._own = 0.0  # seconds
        self._continue_or_refuse()
        # What cannot be measured is told before hours of training; n is not known yet, so the embedding waits for it.
        self._first: np.ndarray | None = None if start else self._embedded(self._most)
        self._board = _tensorboard(self.out, start)
        self._since = perf_counter()
        self._own += self._since - began

    @property
    def results(self) -> pd.DataFrame:
        """What has been measured so far, one row per measurement, as in ``monitor.parquet``."""
        return pd.DataFrame(self._rows)

    def _repr_html_(self) -> str:
        """The last measurements, for notebooks."""
        shown = [name for name in ("step", *SHOWN, *self._own_names()) if name in self.results]
        table = (
            self.results[shown].tail(5).astype(float).round(3).to_html(index=False)
            if self._rows
            else ""
        )
        return f"<p>RepresentationMonitor at step {self.steps}: {html.escape(str(self.out))}</p>{table}"

    def step(self, **numbers: float | torch.Tensor) -> None:
        """Count an optimiser step, and measure if one is due.

        Parameters
        ----------
        **numbers
            Numbers of the caller's, such as ``loss``. A measurement holds the mean of each since the last one. Tensors
            are read only then, so that a GPU is not waited for at every step.

        Raises
        ------
        InputError
            For a name that a column of the monitor's has.
        """
        for name, value in numbers.items():
            if name in NUMBERS:
                raise InputError(
                    f"{name} is a column of the monitor's own; give yours another name"
                )
            kept = value.detach() if isinstance(value, torch.Tensor) else float(value)
            self._given.setdefault(name, []).append(kept)
        self.steps += 1
        if self.steps % self.every == 0:
            self._measure()

    def close(self) -> None:
        """Measure the last state, unless that is done, and write everything."""
        if self.steps > self._measured_at:
            self._measure()
        self._finish()
        if self._rows:
            print(
                f"monitor: {len(self._rows)} measurements; their curves: dsmi-zoo report --out {self.out}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:  # the model may be in no state to be measured
            self._finish()

    def _finish(self) -> None:
        if self._rows:
            self._write()
        if self._board is not None:
            self._board.close()

    def _measure(self) -> None:
        _synchronise(self.model)  # what a GPU still has to do is training, not measuring
        began = perf_counter()
        self._training += began - self._since
        if self._n is None:
            self._n = self._choose_n()
        if self._clusters is None:
            self._clusters = clusters_of(self._images[: self._n], self._labels[: self._n])
        if self._first is not None:
            self._add(0, self._first[: self._n], 0.0)
            self._first = None
        self._add(self.steps, self._embedded(self._n), began)
        self._measured_at = self.steps
        try:
            self._write()
        except OSError as error:
            warnings.warn(f"monitor: not written, training goes on: {error}", stacklevel=3)
        self._since = perf_counter()
        self._own += self._since - began

    def _choose_n(self) -> int:
        """Raise the number of images, at most twofold at a time, while a measurement stays within its share of time."""
        budget = SHARE * self.every * self._training / max(self.steps - self._measured_at, 1)
        n = min(self._least, self._most)
        self._timed(n)  # the first call loads and allocates
        seconds = self._timed(n)
        if seconds > budget:
            need = math.ceil(self.every * seconds / budget)
            warnings.warn(
                f"monitor: measuring {n} images every {self.every} steps takes "
                f"{100 * SHARE * seconds / budget:.1f}% of the training time; every={need} would take "
                f"{100 * SHARE:.0f}%, and with what is done once less than {100 * BUDGET:.0f}%",
                stacklevel=4,
            )
        growth = (
            2.0  # the power of n with which the time grows: forward passes by 1, eigenvalues by 3
        )
        while n < self._most:
            fitting = int(n * (budget / seconds) ** (1 / growth))
            larger = min(2 * n, fitting, self._most)
            if larger <= n:
                break
            before, seconds = seconds, self._timed(larger)
            if seconds > budget:
                break
            grown = math.log(seconds / before) / math.log(larger / n)
            n, growth = larger, min(max(grown + 0.5, 1.5), 3.0)
        return n

    def _timed(self, n: int) -> float:
        began = perf_counter()
        labels = self._labels[:n]
        # Of values that are not finite: told where they are stored.
        with contextlib.suppress(ValueError):
            _measured(self._embedded(n), labels, labels)
        return perf_counter() - began

    def _embedded(self, n: int) -> np.ndarray:
        with undisturbed(unwrapped(self.model)):
            return activations(self.model, self._images[:n], self.layer)

    def _add(self, step: int, embedding: np.ndarray, began: float) -> None:
        row: dict[str, Any] = dict.fromkeys(NUMBERS)
        row |= {"step": step, "n_samples": len(embedding), "embedding_dim": embedding.shape[1]}
        try:
            row |= _measured(embedding, self._labels[: len(embedding)], self._clusters)
        except ValueError as error:  # a training that has diverged is the user's to stop
            warnings.warn(f"monitor: step {step} cannot be measured: {error}", stacklevel=4)
        spent = perf_counter() - began if began else 0.0
        row |= {
            "seconds_training": self._training if step else 0.0,
            "seconds_monitor": self._own + spent,
        }
        if step:
            row |= {name: _mean(given) for name, given in self._given.items()}
            self._given = {}
        self._rows.append(row)
        self._pass_on(row, step)
        if self._board is not None:
            for name in (*SHOWN, *self._own_names()):
                if row.get(name) is not None:
                    self._board.add_scalar(f"dsmi-zoo/{name}", row[name], step)

    def _pass_on(self, row: dict[str, Any], step: int) -> None:
        if self._log is None:
            return
        known = {
            name: float(value)
            for name, value in row.items()
            if name != "step" and value is not None
        }
        try:
            self._log(known, step)
        except Exception as error:  # a logger is no reason to lose a training
            if not self._told:
                reason = f"{type(error).__name__}: {error}"
                warnings.warn(
                    f"monitor: log failed at step {step}, training goes on: {reason}", stacklevel=5
                )
            self._told = True

    def _own_names(self) -> list[str]:
        return list(
            dict.fromkeys(name for row in self._rows for name in row if name not in NUMBERS)
        )

    def _write(self) -> None:
        write_monitor(self.out, self._rows, self._facts | {"n": self._n})

    def _continue_or_refuse(self) -> None:
        path = monitor_path(self.out)
        if (self.out / "run.json").exists():
            raise InputError(
                f"{self.out} holds a run of the zoo; choose another out for the monitor"
            )
        if not path.exists():
            if self.steps:
                raise InputError(
                    f"start={self.steps}, but {path} is not there; start=0 begins a new one"
                )
            return
        rows, facts = read_monitor(self.out)
        if not self.steps:
            last = int(rows["step"].max())
            raise InputError(
                f"{path} holds a training of {last} steps; choose another out, or start=STEP to continue that training"
            )
        wanted = self._facts | {"n": self._n if self._n is not None else facts["n"]}
        for name, value in wanted.items():
            if facts.get(name) != value:
                was = json.dumps(facts.get(name))
                raise InputError(
                    f"{path} was begun with {name}={was}, not {json.dumps(value)}; choose another out"
                )
        self._n = facts["n"]
        kept = rows[rows["step"] <= self.steps].astype(object)
        self._rows = [
            dict(zip(map(str, kept), row, strict=True))
            for row in kept.where(kept.notna(), None).to_numpy()
        ]
        if self._rows:
            self._training, self._own = (
                float(self._rows[-1][f"seconds_{name}"]) for name in ("training", "monitor")
            )


def _mean(given: list[Any]) -> float:
    """Of numbers or tensors of one number, which a training has given since the last measurement."""
    return float(np.mean([float(value) for value in given]))


def _measured(
    embedding: np.ndarray, labels: np.ndarray, clusters: np.ndarray | None
) -> dict[str, Value]:
    """The measures, diagnostics and simple scores of an embedding, by the paper's settings."""
    context = MeasureContext(embedding, labels, None, clusters, MeasureSettings())
    return values_of((*DIAGNOSTICS, *MEASURES, *SIMPLE_SCORES), context)


def _synchronise(model: torch.nn.Module) -> None:
    if any(parameter.is_cuda for parameter in model.parameters()):
        torch.cuda.synchronize()


def _tensorboard(out: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out), purge_step=start or None)
