"""Measure a network while it trains: DSE and DSMI of one layer on held-out images, at regular steps."""

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

from ..measures.catalog import DIAGNOSTICS, MEASURES, UNDEFINED, joined_reasons, parted_reasons
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
    class_balanced_order,
    clusters_of,
    draw_from,
    warn_of_small_classes,
    whole_number,
)

BUDGET = 0.05  # share of the training time
# The regular measurements get this share; the rest is for one-off set-up and for slower moments.
SHARE = 0.4 * BUDGET
MOST = 500  # images by default: more hardly change a curve, and the cost of eigenvalues is cubic
SHOWN = ("dse_z", "dsmi_z_y", "dsmi_z_x", *(one.name for one in SIMPLE_SCORES))


class RepresentationMonitor:
    """Measure DSE(Z), DSMI(Z;Y) and DSMI(Z;X) of a layer every ``every`` optimiser steps, into ``OUT/monitor.parquet``.

    Training is not affected: there are no gradients, and every module's mode and all random states (torch's, the
    accelerators', NumPy's, Python's) are restored, so the weights are the same bit for bit. The state before the first
    step is measured too, and the last one on ``close``. ``dsmi-zoo report --out DIR`` draws the curves; TensorBoard
    gets them as well if it is installed.

    Parameters
    ----------
    model
        Any module, also inside DataParallel, DistributedDataParallel (then on one process only) or torch.compile.
    images : float tensor or array [m, c, h, w]
        Held-out images, as the model takes them: normalised.
        Or a data set of pairs (image, label), or its loader, from which up to 500 are drawn, seeded.
    labels : [m] or None
        Their classes, at least two; None with a data set.
    every
        Optimiser steps between measurements.
    out
        The folder; one for each training.
    layer
        A name of ``model.named_modules()``; None is the penultimate layer (see
        `dsmi_zoo.pipeline.networks.layers.forward`).
    n
        Number of images to measure, balanced over the classes. With None the first measurement chooses it: at most 500
        (or four per class), and few enough to keep the cost under 5% of the training time (including one-off set-up,
        from about five measurements on).
    log
        Called after each measurement as ``log(numbers, step)`` with a dict of the known values: ``wandb.log`` and
        ``mlflow.log_metrics`` can be passed as they are. An error in it is reported once; training goes on.
    start
        The step from which a training continues; later measurements are dropped, and all settings must be as before.

    Raises
    ------
    InputError
        For invalid images, labels, layers or numbers, and for a folder that holds another training.
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
            images, labels = draw_from(images, MOST, FEWEST_PER_CLASS)
        images, labels = checked_images(images, labels)
        warn_of_small_classes(labels)
        check_layer(model, layer)
        self._least = max(2, FEWEST_PER_CLASS * len(np.unique(labels)))
        if n is not None and not 2 <= whole_number(n, "n", 2) <= len(labels):
            raise InputError(f"n={n}, but there are only {len(labels)} images")
        self._most = min(len(labels), max(MOST, self._least)) if n is None else n
        order = class_balanced_order(labels)[: self._most]
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
        self._log_has_failed = False
        self._reasons: list[str] = []  # for values that measurements lack
        self._given: dict[str, list[Any]] = {}  # the caller's numbers since the last measurement
        self._training = self._own = 0.0  # seconds
        self._continue_or_refuse()
        # A model that cannot be measured fails here, before hours of training. The embedding waits for n.
        self._first: np.ndarray | None = None if start else self._embedded(self._most)
        self._board = _tensorboard(self.out, start)
        self._since = perf_counter()
        self._own += self._since - began

    @property
    def results(self) -> pd.DataFrame:
        """The measurements so far, one row each, as in ``monitor.parquet``."""
        return pd.DataFrame(self._rows)

    def _repr_html_(self) -> str:
        """Show the last measurements in a notebook."""
        shown = [name for name in ("step", *SHOWN, *self._own_names()) if name in self.results]
        last = self.results[shown].tail(5).astype(float).round(3)
        table = last.to_html(index=False) if self._rows else ""
        return f"<p>RepresentationMonitor at step {self.steps}: {html.escape(str(self.out))}</p>{table}"

    def step(self, **numbers: float | torch.Tensor) -> None:
        """Count an optimiser step, and measure if one is due.

        Parameters
        ----------
        **numbers
            The caller's own numbers, such as ``loss``. A measurement holds the mean of each since the last one. Tensors
            are read only then, to avoid waiting for a GPU at every step.

        Raises
        ------
        InputError
            For the name of a column of the monitor's own.
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
        """Measure the last state, unless it has been, and write everything."""
        if self.steps > self._measured_at:
            self._measure()
        self._finish()
        if self._rows:
            count = len(self._rows)
            print(f"monitor: {count} measurements; their curves: dsmi-zoo report --out {self.out}")

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
        else:  # the model may not be in a state to be measured
            self._finish()

    def _finish(self) -> None:
        if self._rows:
            self._write()
        if self._board is not None:
            self._board.close()

    def _measure(self) -> None:
        if any(parameter.is_cuda for parameter in self.model.parameters()):
            torch.cuda.synchronize()  # pending work on a GPU is training, not measuring
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
        """Increase the number of images, at most twofold at a time, while a measurement keeps to its share of time."""
        budget = SHARE * self.every * self._training / max(self.steps - self._measured_at, 1)
        n = min(self._least, self._most)
        self._timed(n)  # the first call loads and allocates
        seconds = self._timed(n)
        if seconds > budget:
            need = math.ceil(self.every * seconds / budget)
            warnings.warn(
                f"monitor: measuring {n} images every {self.every} steps takes "
                f"{100 * SHARE * seconds / budget:.1f}% of the training time; every={need} would take "
                f"{100 * SHARE:.0f}%, and under {100 * BUDGET:.0f}% including one-off set-up",
                stacklevel=4,
            )
        growth = 2.0  # exponent of n in the time: 1 for forward passes, 3 for eigenvalues
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
        with contextlib.suppress(ValueError):  # values that are not finite are reported by `_add`
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
        except ValueError as error:  # only the user can decide to stop a training that has diverged
            warnings.warn(f"monitor: step {step} cannot be measured: {error}", stacklevel=4)
        reasons = row.pop(UNDEFINED, None)
        if reasons not in (None, *self._reasons):
            self._reasons.append(reasons)
            warnings.warn(f"monitor: step {step} lacks values: {reasons}", stacklevel=4)
        row["seconds_training"] = self._training if step else 0.0
        row["seconds_monitor"] = self._own + (perf_counter() - began if began else 0.0)
        if step:
            for name, given in self._given.items():
                row[name] = float(np.mean([float(value) for value in given]))
            self._given = {}
        self._rows.append(row)
        known = {name: float(value) for name, value in row.items() if value is not None}
        del known["step"]
        if self._board is not None:
            for name in (*SHOWN, *self._own_names()):
                if name in known:
                    self._board.add_scalar(f"dsmi-zoo/{name}", known[name], step)
        if self._log is None:
            return
        try:
            self._log(known, step)
        except Exception as error:  # a failing logger must not end the training
            if not self._log_has_failed:
                reason = f"{type(error).__name__}: {error}"
                warnings.warn(
                    f"monitor: log failed at step {step}, training goes on: {reason}", stacklevel=4
                )
            self._log_has_failed = True

    def _own_names(self) -> list[str]:
        names = dict.fromkeys(name for row in self._rows for name in row)
        return [name for name in names if name not in NUMBERS]

    def _write(self) -> None:
        write_monitor(self.out, self._rows, self._facts | {"n": self._n})

    def _continue_or_refuse(self) -> None:
        path = monitor_path(self.out)
        if (self.out / "run.json").exists():
            raise InputError(f"{self.out} holds a run of models; choose another out")
        if not path.exists():
            if self.steps:
                raise InputError(f"start={self.steps}, but {path} is missing; start=0 begins it")
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
            self._training = float(self._rows[-1]["seconds_training"])
            self._own = float(self._rows[-1]["seconds_monitor"])


def _measured(
    embedding: np.ndarray, labels: np.ndarray, clusters: np.ndarray | None
) -> dict[str, Value]:
    """Compute the measures, diagnostics and simple scores of an embedding, by the paper's settings."""
    context = MeasureContext(embedding, labels, None, clusters, MeasureSettings())
    values = values_of((*DIAGNOSTICS, *MEASURES, *SIMPLE_SCORES), context)
    reasons = parted_reasons(str(values.pop(UNDEFINED, "")))
    # Classes too small for a standard error were reported when the monitor was made.
    of_scores = {name: why for name, why in reasons.items() if not name.endswith("_se")}
    return values | ({UNDEFINED: joined_reasons(of_scores)} if of_scores else {})


def _tensorboard(out: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out), purge_step=start or None)
