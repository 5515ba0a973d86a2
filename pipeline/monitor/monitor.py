"""Measure a network while it trains: DSE and DSMI of one layer on held-out images, at regular steps."""

import contextlib
import html
import json
import logging
import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import array_sha256
from dsmi_zoo._util.text import counted, shown

from ..measures.catalog import DIAGNOSTICS, MEASURES, UNDEFINED, format_reasons, parse_reasons
from ..measures.core.context import MeasureContext
from ..measures.core.registry import Value
from ..measures.core.settings import MeasureSettings
from ..measures.run import values_of
from ..networks.forward import evaluation_mode, layer_activations, random_states_kept
from ..networks.layers import check_layer, unwrapped
from .cost import BUDGET, CHOICE, SHARE, choose_n
from .file import (
    NUMBERS,
    SIMPLE_SCORES,
    column_of,
    layers_of,
    monitor_path,
    own_columns,
    read_monitor,
    write_monitor,
)
from .images import (
    MIN_PER_CLASS,
    checked_images,
    class_balanced_order,
    clusters_of,
    draw_from,
    warning_of_small_classes,
    whole_number,
)
from .ranks import Ranks, described, rank_here
from .trackers import Tracker, tracker

LOG = logging.getLogger(__name__)

MAX_IMAGES = (
    500  # images by default: more hardly change a curve, and the cost of eigenvalues is cubic
)
MAX_EQUAL = 3  # measurements in a row without any change of the embedding, before a warning
NOISE = 0.02  # relative differences of two forward passes that rounding explains
SHOWN = ("dse_z", "dsmi_z_y", "dsmi_z_x", *(one.name for one in SIMPLE_SCORES))


class RepresentationMonitor:
    """Monitor that records DSE(Z), DSMI(Z;Y) and DSMI(Z;X) of a layer every ``every`` optimiser steps.

    Training is not affected: there are no gradients, and every module's mode and all random states (torch's, the
    accelerators', NumPy's, Python's) are restored, so the weights are the same bit for bit. The state before the first
    step is measured too, and the last one on ``close``. Measurements are stored in ``OUT/monitor.parquet``;
    ``dsmi-zoo report --out DIR`` draws the curves, and TensorBoard gets them as well if it is installed.

    Parameters
    ----------
    model
        Any module, also inside DataParallel, DistributedDataParallel or torch.compile. Every process may make a monitor
        and call `step`: rank 0 measures, the others do nothing. With a sharded network (FSDP) every process must.
    images : float tensor or array [m, c, h, w]
        Held-out images, as the model takes them: normalised.
        Or a data set of pairs (image, label), or its loader, from which up to 500 are drawn, seeded: see `draw_from`.
    labels : [m] or None
        Their classes, at least two; None with a data set.
    every
        Optimiser steps between measurements.
    out
        The folder, one per training. The measurements of a training that has ended are moved to ``OUT/earlier-1``.
    layer
        A name of ``model.named_modules()``; None is the penultimate layer (see
        `dsmi_zoo.pipeline.networks.layers.forward`). Several layers are measured in one forward pass; the first has
        the plain columns, the others ``LAYER/dse_z`` and so on.
    n
        Number of images to measure, balanced over the classes. With None the first measurement chooses it: at most 500
        (or four per class), and few enough that a measurement takes under 2% of the training time since the last one,
        and all of them, with this choice, under 5% (from about five measurements on).
    log
        ``"wandb"``, ``"mlflow"`` or ``"tensorboard"``, which get ``dsmi-zoo/dse_z`` and so on at the training's steps;
        or a function, called after each measurement as ``log(numbers, step)`` with a dict of the known values.
    start
        The step from which a training continues. Later measurements are dropped, and all settings must be as before;
        if ``out`` has no measurements yet, they begin at this step.

    Raises
    ------
    InputError
        For invalid images, labels, layers or settings, for a folder that holds another training, and for a sharded
        network without a monitor on every rank. Later, a monitor only warns, once for each kind of failure.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        images: "torch.Tensor | np.ndarray | Dataset[Any] | DataLoader[Any]",
        labels: torch.Tensor | np.ndarray | None = None,
        *,
        every: int = 100,
        out: str | Path,
        layer: str | Sequence[str | None] | None = None,
        n: int | None = None,
        log: str | Callable[[dict[str, float], int], Any] | None = None,
        start: int = 0,
    ) -> None:
        began = perf_counter()
        self.model, self.out = model, Path(out)
        self.layers = layers_of(layer)
        self.layer = self.layers[0]
        self._n = n
        self._chooses_n = n is None
        self._log = tracker(log)
        self.last: dict[str, float] | None = None
        self._rows: list[dict[str, Any]] = []
        self._unsent: list[dict[str, Any]] = []
        self._given: dict[str, list[Any]] = {}  # the caller's numbers since the last measurement
        self._said: set[Hashable] = set()
        self._clusters: np.ndarray | None = None
        self._last: np.ndarray | None = None  # the embedding of the last measurement
        self._equal = 0  # measurements in a row with the same embedding
        # The file's content as this monitor wrote it, to notice that another monitor writes it too.
        self._written: list[tuple[int, float]] | None = None
        self._training = self._own = 0.0  # seconds
        self._board: Any = None
        self.holds_rows = False  # whether rows wait for `send`, for a callback that knows a step's numbers only later
        for name in self.layers:
            check_layer(model, name)
        self._ranks = Ranks.of(model)
        self._is_after_another = False  # a training whose measurements are in the folder has ended
        self._has_ended = False
        self.is_idle = self._ranks is None and rank_here() > 0
        if self.is_idle:
            self.every, self.steps = (
                whole_number(every, "every", 1),
                whole_number(start, "start", 0),
            )
            LOG.info("monitor: rank %d measures nothing; rank 0 does", rank_here())
            return
        self._writes = self._ranks is None or self._ranks.rank == 0
        with self._ranks_agree():
            self._check_and_draw(images, labels, every, start)
        self._start = self.steps
        if self._ranks is not None:
            self._n = int(self._ranks.from_first(int(self._n or 0))) or None
        # A model that cannot be measured fails here, before hours of training. The embedding is kept until n is known.
        with self._ranks_agree():
            self._first = self._first_embedding(is_continued=self._from_first(len(self._rows)) > 0)
            if self._writes:
                self._warm_up()
                if self._is_after_another:
                    self._set_aside()
                self._board = _prepared(self.out, start, log)
        self._since = perf_counter()
        self._own += self._since - began

    def _ranks_agree(self) -> AbstractContextManager[None]:
        return nullcontext() if self._ranks is None else self._ranks.all_or_none()

    def _from_first(self, value: float) -> float:
        """Return the value of a sharded network's rank 0, so that all measure the same images."""
        return value if self._ranks is None else self._ranks.from_first(value)

    def _check_and_draw(self, images: Any, labels: Any, every: int, start: int) -> None:
        if self.out.is_file():
            raise InputError(f"out: {self.out} is a file; name a folder")
        if self._writes and isinstance(self._log, Tracker):
            self._log.check()
        self.every = whole_number(every, "every", 1)
        self.steps = self._measured_at = whole_number(start, "start", 0)
        if isinstance(images, Dataset | DataLoader):
            if labels is not None:
                raise InputError("labels come with the data set; pass it alone")
            dataset = images.dataset if isinstance(images, DataLoader) else images
            images, labels = draw_from(images, MAX_IMAGES, MIN_PER_CLASS)
            if isinstance(dataset, IterableDataset) and len(images) >= MAX_IMAGES:
                count = counted(len(np.unique(labels)), "class")
                words = f"the first {MAX_IMAGES} images of an IterableDataset are taken, of {count}"
                self.warn_once(
                    "stream", f"{words}; shuffle it, or pass tensors of images and labels"
                )
        images, labels = checked_images(images, labels)
        if reason := warning_of_small_classes(labels):
            self.warn_once(reason, reason)
        self._least = max(2, MIN_PER_CLASS * len(np.unique(labels)))
        n = self._n
        if n is not None and not 2 <= whole_number(n, "n", 2) <= len(labels):
            raise InputError(f"n={n}, but there are only {len(labels)} images")
        self._most = min(len(labels), max(MAX_IMAGES, self._least)) if n is None else n
        order = class_balanced_order(labels)[: self._most]
        self._images, self._labels = images[torch.from_numpy(order)].float(), labels[order]
        self._facts: dict[str, Any] = {
            "layer": self.layer,
            **({"layers": self.layers} if len(self.layers) > 1 else {}),
            "every": self.every,
            "images_sha256": array_sha256(images.float().numpy()),
            "labels_sha256": array_sha256(labels),
        }
        if self._writes:
            self._continue_or_refuse()

    def _first_embedding(self, is_continued: bool) -> list[np.ndarray] | None:
        """Return the embeddings before the first step; None if the folder has measurements of the training already."""
        try:
            embedding = self._embedded(2 if is_continued else self._most)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the model's forward pass fails on these images ({described(error)})"
            ) from error
        self._check_repeatable()
        if is_continued and self._rows:
            before, now = self._rows[-1]["embedding_dim"], embedding[0].shape[1]
            if before not in (None, now):
                raise InputError(
                    f"{monitor_path(self.out)} was begun with {before:g} columns of the embedding, not {now}: another "
                    "network or layer; choose another out"
                )
        return None if is_continued else embedding

    def _check_repeatable(self) -> None:
        """Warn of a network that draws random numbers in evaluation mode, as with a forgotten ``self.training``."""
        outputs = []
        for seed in range(2):
            with random_states_kept():
                torch.manual_seed(seed)
                outputs.append(self._embedded(2)[0])
        one, other = outputs
        if not np.allclose(one, other, rtol=0, atol=NOISE * np.abs(one).max(), equal_nan=True):
            words = "the model gives other values for the same images in evaluation mode (such as by F.dropout without "
            self.warn_once(
                "random", f"{words}training=self.training), so each measurement has its noise"
            )

    @property
    def results(self) -> pd.DataFrame:
        """The measurements so far, one row each, as in ``monitor.parquet``."""
        return pd.DataFrame(self._rows)

    def _repr_html_(self) -> str:
        """Show the last measurements in a notebook."""
        names = [name for name in ("step", *self.shown, *self._own_names()) if name in self.results]
        last = self.results[names].tail(5).astype(float).round(3)
        table = last.to_html(index=False) if self._rows else ""
        return f"<p>RepresentationMonitor at step {self.steps}: {html.escape(str(self.out))}</p>{table}"

    def step(self, **numbers: float | torch.Tensor) -> dict[str, float] | None:
        """Count an optimiser step, and measure if one is due.

        A failure does not stop training: it causes a warning, once for each kind.

        Parameters
        ----------
        **numbers
            The caller's own numbers, such as ``loss``. A measurement holds the mean of each since the last one. Tensors
            are read only then, to avoid waiting for a GPU at every step.

        Returns
        -------
        dict or None
            The known values of this step's measurement, as in `last`; None without one.
        """
        self.record(**numbers)
        self.steps += 1
        return self.measure_now() if self.steps % self.every == 0 else None

    def record(self, **numbers: float | torch.Tensor) -> None:
        """Keep numbers as `step` does, without counting a step: for each batch while gradients are accumulated."""
        for name, value in numbers.items() if not self.is_idle else ():
            if name in NUMBERS:
                self.warn_once(
                    name, f"{name} is a column of the monitor's own; give yours another name"
                )
                continue
            try:
                self._given.setdefault(name, []).append(_one_number(value))
            except Exception as error:
                self.warn_once(("number", name), f"{name} is not recorded: {error}")

    @property
    def has_numbers(self) -> bool:
        """Whether there are numbers for the next measurement."""
        return bool(self._given)

    @property
    def lags(self) -> bool:
        """Whether the last step has not been measured."""
        return not self.is_idle and self.steps > self._measured_at

    def measure_now(self) -> dict[str, float] | None:
        """Measure the current state, unless it has been measured, and return the known values."""
        if not self.lags:
            return None
        before = len(self._rows)
        with self._training_goes_on("step {} was not measured"):
            try:
                self._measure()
            finally:
                self._measured_at = self.steps
                self._given = {}
        if not self.holds_rows:
            self.send()
        if len(self._rows) == before:
            return None
        self.last = _known(self._rows[-1])
        return self.last

    def send(self, numbers: Mapping[int, Mapping[str, float]] | None = None) -> None:
        """Pass new measurements on to TensorBoard and ``log``, with the caller's numbers of their steps."""
        rows, self._unsent = self._unsent, []
        if not rows:
            return
        with self._own_time():
            for row in rows:
                row.update((numbers or {}).get(row["step"], {}))
            if numbers:
                self._write()
            for row in rows:
                self._pass_on(row)

    def close(self) -> None:
        """Measure the last state, unless it has been measured, and write everything."""
        self.measure_now()
        self.finish()

    def finish(self) -> None:
        """Write everything, without another measurement."""
        self.send()
        if self._rows:
            self._has_ended = True
            self._write()
            of_images = f"{counted(len(self._rows), 'measurement')} of {counted(int(self._n or 0), 'image')}"
            if self._chooses_n and self._n is not None:
                of_images += f" ({comparable(self._n)})"
            print(f"monitor: {of_images}; their curves: dsmi-zoo report --out {self.out}")
        if self._board is not None:
            with self._training_goes_on("TensorBoard failed at step {}"):
                self._board.close()
        if isinstance(self._log, Tracker):
            with self._training_goes_on("log failed at step {}"):
                self._log.close()

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
            self.finish()

    @contextmanager
    def _training_goes_on(self, what: str) -> Iterator[None]:
        """Turn an exception into a warning, once for each kind."""
        try:
            yield
        except Exception as error:
            words = f"{what.format(self.steps)}, training goes on: {described(error)}"
            self.warn_once((what, type(error)), words)

    def warn_once(self, kind: Hashable, message: str) -> None:
        """Warn, once for each kind."""
        if kind in self._said:
            return
        self._said.add(kind)
        try:
            warnings.warn(f"monitor: {message}", stacklevel=4)
        except Warning:  # where warnings are errors, this one would end the training
            LOG.warning("monitor: %s", message)

    @contextmanager
    def _own_time(self) -> Iterator[float]:
        """Count the time since the last measurement as training, and the block's as measuring; yield its start."""
        began = perf_counter()
        self._training += began - self._since
        try:
            yield began
        finally:
            self._since = perf_counter()
            self._own += self._since - began

    def _measure(self) -> None:
        if any(parameter.is_cuda for parameter in self.model.parameters()):
            torch.cuda.synchronize()  # pending work on a GPU is training, not measuring
        with self._own_time() as began, random_states_kept():
            self._measure_from(began)
            self._write()

    def _measure_from(self, began: float) -> None:
        if self._n is None:
            self._n = self._choose_n()
            if self._writes:
                LOG.info(
                    "monitor: n=%d images, chosen by their cost; %s", self._n, comparable(self._n)
                )
        if self._writes and self._clusters is None:
            try:
                self._clusters = clusters_of(self._images[: self._n], self._labels[: self._n])
            except ValueError as error:
                self.warn_once("clusters", f"no DSMI(Z;X): {error}")
        if self._first is not None:
            first, self._first = [one[: self._n] for one in self._first], None
            self._last = first[0]
            self._add(self._start, first, 0.0)
        embeddings = None
        with self._training_goes_on("step {} cannot be measured"):
            embeddings = self._embedded(self._n)
        self._warn_if_unchanged(embeddings[0] if embeddings else None)
        self._add(self.steps, embeddings, began)

    def _warn_if_unchanged(self, embedding: np.ndarray | None) -> None:
        """Warn of a layer that stays unchanged; a few steps may be skipped, or have a learning rate of 0."""
        before, self._last = self._last, embedding
        is_equal = (
            embedding is not None and before is not None and np.array_equal(embedding, before)
        )
        self._equal = self._equal + 1 if is_equal else 0
        if self._equal == MAX_EQUAL:
            words = (
                f"the embedding at step {self.steps} is bit for bit that of the {MAX_EQUAL} measurements before: "
                "the layer is frozen, the optimiser skips its steps, or another copy of the network is trained"
            )
            self.warn_once("unchanged", words)

    def _choose_n(self) -> int:
        seconds_per_step = self._training / max(self.steps - self._measured_at, 1)
        between = self._from_first(self.every * seconds_per_step)
        least, budget = min(self._least, self._most), SHARE * between
        n, seconds = choose_n(self._timed, least, self._most, budget, CHOICE * between)
        if seconds > budget:
            need = math.ceil(self.every * seconds / budget)
            self.warn_once(
                "cost",
                f"measuring {least} images every {self.every} steps takes "
                f"{100 * SHARE * seconds / budget:.1f}% of the training time; every={need} would take "
                f"{100 * SHARE:.0f}%, and under {100 * BUDGET:.0f}% with the choice of n",
            )
        return n

    def _timed(self, n: int) -> float:
        began = perf_counter()
        labels = self._labels[:n]
        # Another partition than the labels, so that no result is shared between the two.
        clusters = np.roll(labels, n // 2)
        embeddings = self._embedded(n)
        if self._writes:
            with contextlib.suppress(Exception):  # `_add` reports why an embedding has no values
                for embedding in embeddings:
                    _measured(embedding, labels, clusters)
        return self._from_first(perf_counter() - began)

    def _warm_up(self) -> None:
        """Measure a few images, so that imports and caches do not delay the first measurement."""
        n = min(self._least, len(self._labels))
        images, labels = self._images[:n], self._labels[:n]
        with random_states_kept(), contextlib.suppress(Exception):
            _measured(images.flatten(1)[:, :8].numpy(), labels, clusters_of(images, labels))

    def _embedded(self, n: int) -> list[np.ndarray]:
        """Return the embeddings of the first n images, one of each layer."""
        model = unwrapped(self.model)
        with evaluation_mode(model):
            if self._ranks is not None and None in self.layers:
                # Sharded weights are gathered only when the network's own `forward` is called.
                layers = [name and f"0.{name}".removesuffix("..") for name in self.layers]
                model = torch.nn.Sequential(model)
            else:
                layers = self.layers
            return layer_activations(model, self._images[:n], layers)

    def _add(self, step: int, embeddings: list[np.ndarray] | None, began: float) -> None:
        if not self._writes:
            return
        row: dict[str, Any] = dict.fromkeys(NUMBERS) | {"step": step, "n_samples": self._n}
        for name, embedding in zip(self.layers, embeddings or [], strict=False):
            of_layer = {"embedding_dim": embedding.shape[1], **self._values(step, embedding)}
            row |= {column_of(self.layers, name, one): value for one, value in of_layer.items()}
        is_before_training = step == self._start
        row["seconds_training"] = 0.0 if is_before_training else self._training
        row["seconds_monitor"] = self._own + (perf_counter() - began if began else 0.0)
        if not is_before_training:
            row |= self._means()
        self._rows.append(row)
        self._unsent.append(row)

    def _values(self, step: int, embedding: np.ndarray) -> dict[str, Value]:
        """Return the measures, and warn of those without a value."""
        try:
            values = _measured(embedding, self._labels[: len(embedding)], self._clusters)
        except Exception as error:  # only the user can decide to stop a training that has diverged
            reason = str(error) if isinstance(error, ValueError) else described(error)
            self.warn_once(("values", type(error)), f"step {step} cannot be measured: {reason}")
            return {}
        reasons = values.pop(UNDEFINED, None)
        if reasons is not None:
            self.warn_once(("undefined", reasons), f"step {step} lacks values: {reasons}")
        return values

    def _means(self) -> dict[str, float]:
        means = {}
        for name, given in self._given.items():
            if given:
                means[name] = float(np.mean([float(value) for value in given]))
        return means

    def _pass_on(self, row: Mapping[str, Any]) -> None:
        step = row["step"]
        known = _known(row)
        del known["step"]
        if self._board is not None:
            with self._training_goes_on("TensorBoard failed at step {}"):
                for name in (*self.shown, *self._own_names()):
                    if name in known:
                        self._board.add_scalar(f"dsmi-zoo/{name}", known[name], step)
        if self._log is not None:
            with self._training_goes_on("log failed at step {}"):
                self._log(known, step)

    @property
    def shown(self) -> list[str]:
        """The columns of the scores that are shown, logged to TensorBoard and given to trainers."""
        return [column_of(self.layers, layer, name) for layer in self.layers for name in SHOWN]

    def _own_names(self) -> list[str]:
        names = dict.fromkeys(name for row in self._rows for name in row)
        return own_columns(names, self.layers)

    def _write(self) -> None:
        if not self._rows:
            return
        path = monitor_path(self.out)
        with self._training_goes_on("step {} was not written"):
            if self._is_of_another(path):
                words = f"{path} is written by another monitor too, so this one's measurements are only in its results"
                self.warn_once(
                    "shared", f"{words}; give each monitor (and one process) an out of its own"
                )
                return
            own = "logged" if self.holds_rows else "means"
            facts = self._facts | {"n": self._n, "ended": self._has_ended, "own_numbers": own}
            write_monitor(self.out, self._rows, facts)
            self._written = _moments(self._rows)

    def _is_of_another(self, path: Path) -> bool:
        """Return whether the file holds measurements that we did not write."""
        if not path.exists():
            return False
        try:
            rows, _ = read_monitor(self.out)
        except ValueError:  # damaged: will be replaced
            return False
        return _moments(rows.to_dict("records")) != self._written

    def _set_aside(self) -> None:
        """Move the previous training's measurements and its TensorBoard curves into a new folder ``earlier-N``."""
        numbers = (number for number in count(1) if not (self.out / f"earlier-{number}").exists())
        folder = self.out / f"earlier-{next(numbers)}"
        try:
            folder.mkdir()
            for path in (monitor_path(self.out), *self.out.glob("events.out.tfevents.*")):
                path.rename(folder / path.name)
        except OSError as error:
            raise InputError(f"out: {self.out} cannot be written ({described(error)})") from None
        print(f"monitor: the training before is kept in {folder}")

    def _continue_or_refuse(self) -> None:
        path = monitor_path(self.out)
        if (self.out / "run.json").exists():
            raise InputError(f"{self.out} holds a run of models; choose another out")
        if not path.exists():
            if self.steps:
                self.warn_once("resumed", f"{path} is missing; it begins at step {self.steps}")
            return
        rows, facts = read_monitor(self.out)
        if not self.steps and facts.get("ended"):
            self._is_after_another = True
            return
        self._written = _moments(rows.to_dict("records"))
        if not self.steps:
            last = int(rows["step"].max())
            raise InputError(
                f"{path} holds a training of {last} steps that goes on or was interrupted; choose another out, "
                "start=STEP to continue it, or delete the file"
            )
        n = self._n if self._n is not None else facts["n"]
        wanted = {"layers": None} | self._facts | {"n": n}
        for name, value in wanted.items():
            if facts.get(name) != value:
                if name.endswith("_sha256"):
                    what = name.removesuffix("_sha256")
                    raise InputError(
                        f"{path} was begun with other {what}; pass the same ones, or choose another out"
                    )
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
        dropped = len(rows) - len(kept)
        later = f", without {counted(dropped, 'later measurement')}" if dropped else ""
        print(
            f"monitor: {path} continues at step {self.steps} with {counted(len(kept), 'measurement')}{later}"
        )


def comparable(n: int) -> str:
    """Return advice on getting comparable values from another training."""
    return f"pass n={n} to other trainings for comparable values"


def _known(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value is not None}


def _moments(rows: Iterable[Mapping[Any, Any]]) -> list[tuple[int, float]]:
    """Return the step and the seconds of training of each measurement, which no two trainings share."""
    return [(int(row["step"]), float(row["seconds_training"])) for row in rows]


def _one_number(value: Any) -> Any:
    """Return a number as a float, a tensor as a copy on its device; ValueError for anything else."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex():
            shape = list(value.shape)
            raise ValueError(
                f"it is a tensor of shape {shape}; pass one number, such as its mean()"
            )
        return value.detach().reshape(()).clone()  # the caller may change it in place later
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise ValueError(f"it is an array of shape {list(value.shape)}; pass one number")
        value = value.item()
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{shown(value)} is not a number") from None


def _measured(
    embedding: np.ndarray, labels: np.ndarray, clusters: np.ndarray | None
) -> dict[str, Value]:
    """Compute the measures, diagnostics and baseline scores of an embedding, with the paper's settings."""
    context = MeasureContext(embedding, labels, None, clusters, MeasureSettings())
    values = values_of((*DIAGNOSTICS, *MEASURES, *SIMPLE_SCORES), context)
    reasons = parse_reasons(str(values.pop(UNDEFINED, "")))
    # Classes too small for a standard error were reported when the monitor was made.
    of_scores = {name: why for name, why in reasons.items() if not name.endswith("_se")}
    return values | ({UNDEFINED: format_reasons(of_scores)} if of_scores else {})


def _prepared(out: Path, start: int, log: Any) -> Any:
    """Make the folder, and return TensorBoard's writer for it, or None if TensorBoard is not installed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(out), purge_step=start or None)
    except ImportError:
        if log == "tensorboard":
            raise InputError('log="tensorboard" needs it: pip install tensorboard') from None
        return None
    except OSError as error:
        raise InputError(f"out: {out} cannot be written ({described(error)})") from None


def last_values(monitor: RepresentationMonitor, ranks: Ranks | None) -> dict[str, float]:
    """Return the last measurement, rank 0's on every process, without times and the caller's numbers."""
    last = monitor.last if ranks is None else ranks.from_first(monitor.last)
    return {name: value for name, value in (last or {}).items() if name in ("step", *monitor.shown)}
