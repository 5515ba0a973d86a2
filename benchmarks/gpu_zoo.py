"""Speed of the pipeline on a GPU, in a few minutes; each line is printed at once, so a stopped run keeps its figures.

Networks of imagenet-2025 with 0.5 to 300 million parameters and random weights embed noise::

    python benchmarks/gpu_zoo.py | tee gpu.md            8 networks, 3,000 images; on a CPU 2 and 16, to try it out
    python benchmarks/gpu_zoo.py --networks 40 --images 1000 --sharing 0

Prints a line for each network: images per second as the pipeline runs it (channels last for convolutions), in bfloat16,
and in compiled bfloat16; seconds of its row's measures on the GPU and in NumPy, and the largest difference between
their values, relative to the value or to 1, whichever is greater. Then runs `gpu_sharing.py`: 24 networks by 1, 3 and 6
processes, the share of time in which the GPU was busy, and whether the embeddings are the same.

The column that ends in * is not measured here; it is timm's benchmark (bfloat16, compiled, on an RTX PRO 6000).
``busy`` is the share of samples, one every 20 ms of the first pass, in which the driver reports a running kernel; it is
left out without the driver's library (``pip install "dsmi-zoo[cuda]"``).
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import gpu_sharing
import numpy as np
import timm
import torch

from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing
from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.pipeline.embedding.embed import View, embed_inputs
from dsmi_zoo.pipeline.embedding.views import StoredView, open_stored
from dsmi_zoo.pipeline.measures.catalog import ROW_MEASURES
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.run import has_gpu, values_by_default
from dsmi_zoo.pipeline.networks.timm import build_untrained, choose_device

LEAST_M, MAX_M = 0.5, 300.0
MAX_M_ON_CPU, MAX_PIXELS_ON_CPU = 30.0, 224
CLASSES = 20
SAMPLED_EVERY = 0.02  # seconds


def chosen(count: int, on_cpu: bool) -> list[ModelEntry]:
    """Return networks whose parameter counts are evenly spaced on a logarithmic scale."""
    entries = [entry for entry in load_models("imagenet-2025") if entry.extras.get("throughput")]
    most = MAX_M_ON_CPU if on_cpu else MAX_M
    entries = [entry for entry in entries if LEAST_M <= (entry.params_m or 0) <= most]
    if on_cpu:
        entries = [entry for entry in entries if (entry.img_size or 0) <= MAX_PIXELS_ON_CPU]
    entries.sort(key=lambda entry: entry.params_m or 0)
    sizes = np.log([entry.params_m or 0 for entry in entries])
    wanted = np.linspace(sizes[0], sizes[-1], count)
    return [
        entries[place] for place in sorted({int(np.abs(sizes - size).argmin()) for size in wanted})
    ]


class Busy(threading.Thread):
    """A thread that samples whether the GPU is busy."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[int] = []
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample until stopped; return at once without the driver's library."""
        while not self._stopped.wait(SAMPLED_EVERY):
            try:
                self.samples.append(torch.cuda.utilization())
            except Exception:
                return

    def share(self) -> float | None:
        """Return the share of samples in which a kernel ran; None without samples."""
        self._stopped.set()
        self.join()
        return float(np.mean([sample > 0 for sample in self.samples])) if self.samples else None


def view_of(folder: Path, images: int, side: int) -> StoredView:
    """Return noise of seed 0, uint8 [images, side, side, 3]."""
    path = folder / f"{side}.npy"
    if not path.exists():
        np.save(
            path, np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
        )
    return open_stored(path)


def measures(Z: Any, labels: np.ndarray) -> tuple[float, dict[str, Any]]:
    """Return the seconds of all columns of a row, and their values."""
    context = MeasureContext(Z, labels, None, labels, MeasureSettings())
    began = time.perf_counter()
    values = values_by_default(ROW_MEASURES, context)
    return time.perf_counter() - began, values


def largest_difference(some: dict[str, Any], others: dict[str, Any]) -> float:
    """Return the largest difference between two rows' numbers, relative to the number or to 1, whichever is greater."""
    return max(
        abs(value - others[name]) / max(1, abs(value))
        for name, value in some.items()
        if isinstance(value, float) and name in others
    )


MODES: dict[str, dict[str, Any]] = {
    "images/s": {},
    "bf16": {"precision": "bf16"},
    "bf16, compiled": {"precision": "bf16", "compiled": True},
}


def line(entry: ModelEntry, stored: StoredView, labels: np.ndarray, device: torch.device) -> str:
    """Return a network's line of the table."""
    preprocessing = entry.preprocessing or Preprocessing(crop_pct=1, mean=(0, 0, 0), std=(1, 1, 1))
    busy, rates = Busy(), []
    busy.start()
    for settings in MODES.values():
        model = build_untrained(entry)
        few = View(stored[: min(len(stored), 256)], preprocessing)
        embed_inputs(model, few, device, **settings)  # warm-up: chooses algorithms, compiles
        began = time.perf_counter()
        embedding = embed_inputs(model, View(stored, preprocessing), device, **settings)
        rates.append(len(stored) / (time.perf_counter() - began))
        if len(rates) == 1:
            share, values = busy.share(), embedding.values
    by_numpy, expected = measures(values, labels)
    here, found = (
        measures(torch.from_numpy(values).cuda(), labels) if has_gpu() else (by_numpy, expected)
    )
    cells = [entry.model, f"{entry.params_m:.1f}", str(entry.img_size or 224)]
    cells += [f"{rate:,.1f}" for rate in rates]
    cells += [
        f"{float(entry.extras['throughput'] or 0):,.0f}",
        "" if share is None else f"{share:.0%}",
    ]
    cells += [f"{here:.1f}", f"{by_numpy:.1f}", f"{largest_difference(found, expected):.0e}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--sharing", type=int, help="networks that processes share the GPU for")
    options = parser.parse_args()
    device = choose_device()
    on_cpu = device.type == "cpu"
    networks = options.networks or (2 if on_cpu else 8)
    images = options.images or (16 if on_cpu else 3000)
    sharing = options.sharing if options.sharing is not None else (2 if on_cpu else 24)
    labels = np.arange(images) % min(CLASSES, images // 4)
    name = f"CPU, {torch.get_num_threads()} threads" if on_cpu else torch.cuda.get_device_name()
    print(
        f"{name}; torch {torch.__version__}, timm {timm.__version__}; {images} images", flush=True
    )
    heads = ["network", "million parameters", "pixels", *MODES, "published*", "busy"]
    heads += ["measures, s", "by NumPy, s", "largest difference"]
    print(f"| {' | '.join(heads)} |\n|{' ---: |' * len(heads)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for entry in chosen(networks, on_cpu):
            stored = view_of(Path(folder), images, entry.img_size or 224)
            print(line(entry, stored, labels, device), flush=True)
        if sharing:
            processes = (1, 2) if on_cpu else (1, 3, 6)
            cluster = "local" if on_cpu else "cuda"
            gpu_sharing.compare(Path(folder), processes, images, sharing, cluster)


if __name__ == "__main__":
    main()
