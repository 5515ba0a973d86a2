"""The speed of a network on this device: passes are timed one by one after a warm-up."""

import ctypes
import gc
import os
import platform
import timeit
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils.benchmark import timer

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.forkserver import peak_resident
from dsmi_zoo._util.text import shortened
from dsmi_zoo._util.versions import library_versions
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from ..networks.custom import build
from ..networks.forward import MAX_BATCH, WORTH_DOUBLING, defaults_kept
from ..networks.timm import build_untrained
from ..store.timed import Mode, Passes, Place, TimedRow
from .embed import numerics, takes_channels_last

ENOUGH_S = 2.0  # of timed passes of one batch
FEWEST, MOST = 5, 1000  # timed passes
FOR_P95 = 20  # fewest passes for a 95th percentile
WARM_UP_S, WARM_UP = 0.3, 3
SLOW_S = 4.0  # after a pass that takes longer, no larger batch is tried
SMALLER_FIRST = 2  # doublings without a gain, after which no larger batch is tried
MEMORY_SHARE = 0.8  # of the free memory; on a CPU no larger batch is tried beyond it
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # in a processor's times


def device_name(device: str) -> str:
    """Return the name of a GPU, or of this machine's processor.

    Raises
    ------
    InputError
        When torch cannot use the device.
    """
    if device == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device cuda: torch sees no GPU here; --device cpu times on the CPU")
        return torch.cuda.get_device_name()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def time_network(
    entry: ModelEntry,
    builder_sha256: str | None,
    place: Place,
    precision: str,
    *,
    compiled: bool = False,
) -> TimedRow:
    """Time the forward passes of one network; call it in a process that does nothing else.

    timm's networks have random weights, which are as fast as trained ones. The whole network is timed as it is
    deployed, with its classifier if it has one.

    Parameters
    ----------
    builder_sha256
        As for `build`.
    precision
        As for `embed.embed_inputs`.
    compiled
        Whether to time it compiled as well.

    Raises
    ------
    InputError
        When even one image does not fit into the memory.
    """
    device = torch.device(place.device)
    torch.set_num_threads(place.threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    others = _Others()
    size = entry.img_size or 224
    with defaults_kept():
        memory = _Memory(device)
        if entry.builder is None:
            network: Any = build_untrained(entry)
        else:
            network = build(entry, builder_sha256, None).model
        with torch.inference_mode(), numerics(device, precision):
            try:
                network.to(device)
                layout = torch.contiguous_format
                if takes_channels_last(network, device):
                    layout = torch.channels_last
                network.to(memory_format=layout)
                bench = _Bench(network, size, device, layout, memory)
                single = bench.passes(1, fewest=FOR_P95)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise InputError(
                    f"not even one image of {size} pixels fits into the memory of {place.name}"
                ) from None
            batch, largest = bench.fastest_batch()
            eager = bench.mode(single, batch)
            in_code, reason = None, None
            if compiled:
                in_code, reason = _compiled(bench, batch)
    return TimedRow(
        model=entry.model,
        img_size=size,
        **asdict(place),
        precision=precision,
        eager=eager,
        compiled=in_code,
        not_compiled=reason,
        largest_that_fits=largest,
        others_share=others.share(),
        load=load,
        versions=library_versions(),
        finished_at=datetime.now(UTC).replace(microsecond=0),
    )


def _compiled(bench: "_Bench", batch: int) -> tuple[Mode | None, str | None]:
    """Time the compiled network at one image and in batches, or return in one line why torch cannot compile it."""
    try:
        started = timer()
        # Compiled for each of the two batches: one network for all of them may be slower.
        bench.network = torch.compile(bench.network, dynamic=False)
        bench.run(1)()
        seconds = timer() - started
        single = bench.passes(1, fewest=FOR_P95)
        return bench.mode(single, batch, seconds), None
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return None, shortened(f"{type(error).__name__}: {lines[0] if lines else ''}", 200)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out; on a CPU torch raises a plain RuntimeError."""
    of_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or of_cpu


@dataclass
class _Bench:
    """A network on its device, and the memory of its process."""

    network: Any
    size: int
    device: torch.device
    layout: torch.memory_format
    memory: "_Memory"

    def run(self, batch: int) -> Callable[[], object]:
        """Return a function that makes a forward pass of random images."""
        images = torch.rand(batch, 3, self.size, self.size, device=self.device)
        images = images.contiguous(memory_format=self.layout)
        return lambda: self.network(images)

    def passes(self, batch: int, fewest: int = FEWEST) -> Passes:
        """Time passes of one batch one by one after a warm-up, so that they have percentiles."""
        run = timeit.Timer(self.run(batch), timer=timer)  # torch's timer waits for a GPU
        self.memory.reset()
        seconds = run.repeat(WARM_UP, 1)
        while sum(seconds) < WARM_UP_S:
            seconds += run.repeat(1, 1)
        count = int(np.clip(ENOUGH_S / min(seconds), fewest, MOST))
        taken = run.repeat(count, 1)
        p95 = float(np.percentile(taken, 95)) if count >= FOR_P95 else None
        return Passes(
            batch=batch,
            passes=count,
            median_s=float(np.median(taken)),
            p95_s=p95,
            memory=self.memory.peak(),
        )

    def mode(self, single: Passes, batch: int, seconds_compile: float | None = None) -> Mode:
        """Time a batch as well, and return the times of a single image and of the faster of the two."""
        best = single
        if batch > 1:
            best = max(single, self.passes(batch), key=lambda passes: passes.rate)
        return Mode(single=single, best=best, seconds_compile=seconds_compile)

    def fastest_batch(self) -> tuple[int, int | None]:
        """Double the batch while that speeds images up; return the fastest batch, and the largest that fits.

        If a batch does not fit, the largest is half of it, which did; it is None if no limit was met.
        """
        batch, best, best_rate, since = 1, 1, 0.0, 0
        while batch <= MAX_BATCH and since <= SMALLER_FIRST:
            try:
                run = timeit.Timer(self.run(batch), timer=timer)
                self.memory.reset()
                seconds = min(run.repeat(WARM_UP, 1))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                gc.collect()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                return best, batch // 2
            if batch / seconds > WORTH_DOUBLING * best_rate:
                best, best_rate, since = batch, batch / seconds, 0
            else:
                since += 1
            if seconds > SLOW_S:
                break
            if not self.memory.has_room_for_twice():
                return best, batch
            batch *= 2
        return best, None


@dataclass
class _Memory:
    """The memory that a network adds to its process: its weights, and the activations of a pass."""

    device: torch.device
    before: int = field(init=False)

    def __post_init__(self) -> None:
        """Record the memory of the process without the network."""
        self.before = 0 if self.device.type == "cuda" else psutil.Process().memory_info().rss

    def reset(self) -> None:
        """Reset the peak, so that earlier passes do not count."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        with suppress(OSError, AttributeError):  # only Linux with glibc can
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        """Return the peak in bytes since the reset; on a CPU, the bytes in use if the system knows no peak."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        used = psutil.Process().memory_info().rss
        return max(0, used - self.before, (peak_resident() or 0) - self.before)

    def has_room_for_twice(self) -> bool:
        """Return whether a batch twice as large is expected to fit; always on a GPU, where trying it is safe."""
        if self.device.type == "cuda":
            return True
        return self.peak() < MEMORY_SHARE * psutil.virtual_memory().available


class _Others:
    """The share of this process's cores that other processes use."""

    def __init__(self) -> None:
        self._before = self._now()

    def share(self) -> float:
        """Return the mean share since this object was created, 0 to 1."""
        wall, busy, own = (now - then for now, then in zip(self._now(), self._before, strict=True))
        cores = len(_cores())
        return float(np.clip((busy - own) / max(wall * cores, 1e-9), 0, 1))

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Return the seconds of wall time, of all processes on these cores, and of this one with its children."""
        every = psutil.cpu_times(percpu=True)
        used = [every[core] for core in _cores() if core < len(every)]
        busy = sum(getattr(core, name, 0.0) for core in used for name in BUSY)
        own = sum(psutil.Process().cpu_times()[:4])
        return timeit.default_timer(), busy, own


def _cores() -> list[int]:
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        return list(process.cpu_affinity())
    return list(range(psutil.cpu_count() or 1))
