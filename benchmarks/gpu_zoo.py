"""Speed of this machine on a zoo of networks, and utilisation of its GPU.

Runs networks of imagenet-2025 of 0.5 to 300 million parameters with random weights through the pipeline one after the
other: a view of noise, the forward passes, and all measures of a row, on the available device::

    python benchmarks/gpu_zoo.py                        20 networks, 3,000 images on a GPU; 6 and 64 on a CPU
    python benchmarks/gpu_zoo.py --networks 40 --images 1000 --precision bf16 --compile

Columns that end in * are not measured on this machine: ``published`` is timm's own benchmark (bfloat16, compiled, on
an RTX PRO 6000), and ``of published`` the ratio to it. ``busy`` is the share of samples, one every 20 ms, in which the
driver reports a running kernel; without the driver's library (``pip install "dsmi-zoo[cuda]"``) it is left out. The CPU
measures are those of the same embedding in NumPy, for comparison.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
import timm
import torch

from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing
from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.pipeline.embedding.embed import View, embed_inputs
from dsmi_zoo.pipeline.embedding.view_file import StoredView, open_stored
from dsmi_zoo.pipeline.measures.catalog import OF_A_ROW
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.run import has_gpu, values_of
from dsmi_zoo.pipeline.networks.timm import build_untrained, choose_device

LEAST_M, MAX_M = 0.5, 300.0
MAX_M_ON_CPU, MAX_PIXELS_ON_CPU = 30.0, 224
CLASSES = 20
SAMPLED_EVERY = 0.02  # seconds


def chosen(count: int, on_cpu: bool) -> list[ModelEntry]:
    """Return networks whose parameters are evenly spaced on a logarithmic scale."""
    entries = [entry for entry in load_models("imagenet-2025") if entry.extras.get("throughput")]
    most = MAX_M_ON_CPU if on_cpu else MAX_M
    entries = [entry for entry in entries if LEAST_M <= (entry.params_m or 0) <= most]
    if on_cpu:
        entries = [entry for entry in entries if (entry.img_size or 0) <= MAX_PIXELS_ON_CPU]
    entries.sort(key=lambda entry: entry.params_m or 0)
    sizes = np.log([entry.params_m for entry in entries])
    wanted = np.linspace(sizes[0], sizes[-1], count)
    return [
        entries[place] for place in sorted({int(np.abs(sizes - size).argmin()) for size in wanted})
    ]


class Busy(threading.Thread):
    """Samples whether the GPU is at work."""

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


def seconds_of_measures(Z: object, labels: np.ndarray) -> float:
    """Return the seconds of all columns of a row."""
    context = MeasureContext(Z, labels, None, labels, MeasureSettings())
    began = time.perf_counter()
    values_of(OF_A_ROW, context)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    device = choose_device()
    on_cpu = device.type == "cpu"
    networks, images = (
        options.networks or (6 if on_cpu else 20),
        options.images or (64 if on_cpu else 3000),
    )
    labels = np.arange(images) % min(CLASSES, images // 4)
    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{name}; torch {torch.__version__}, timm {timm.__version__}; {images} images, {options.precision}"
    )
    print("| network | million parameters | pixels | images/s | published* | of published* | embed, s | busy |"
          " measures, s | by NumPy, s |")  # fmt: skip
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    embedding_s, measuring_s, began_all = [], [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for entry in chosen(networks, on_cpu):
            side = entry.img_size or 224
            preprocessing = entry.preprocessing or Preprocessing(
                crop_pct=1, mean=(0, 0, 0), std=(1, 1, 1)
            )
            inputs = View(view_of(Path(folder), images, side), preprocessing)
            model = build_untrained(entry)
            busy = Busy()
            busy.start()
            began = time.perf_counter()
            embedding = embed_inputs(
                model, inputs, device, precision=options.precision, compiled=options.compile
            )
            embedding_s.append(time.perf_counter() - began)
            share = busy.share()
            del model
            Z = torch.from_numpy(embedding.values).cuda() if has_gpu() else embedding.values
            measuring_s.append(seconds_of_measures(Z, labels))
            by_numpy = (
                seconds_of_measures(embedding.values, labels) if has_gpu() else measuring_s[-1]
            )
            rate, published = images / embedding_s[-1], float(entry.extras["throughput"])
            print(
                f"| {entry.model} | {entry.params_m:.1f} | {side} | {rate:,.1f} | {published:,.0f} | "
                f"{rate / published:.2f} | {embedding_s[-1]:.1f} | {'' if share is None else f'{share:.0%}'} | "
                f"{measuring_s[-1]:.1f} | {by_numpy:.1f} |",
                flush=True,
            )
    worked, whole = sum(embedding_s) + sum(measuring_s), time.perf_counter() - began_all
    print(
        f"median seconds: embed {median(embedding_s):.2f}, measures {median(measuring_s):.2f}; forward passes and "
        f"measures are {worked / whole:.0%} of {whole:.0f} s, building networks and views the rest"
    )


if __name__ == "__main__":
    main()
