"""Cost of verifying cached files, compared with the forward passes that need them; and of flushing a row's folders.

A view is hashed once per process that uses it, a file of weights before it is loaded::

    python benchmarks/cost_of_checks.py                              # a CPU: 200 images
    python benchmarks/cost_of_checks.py --images 3000                # a GPU

Weights are random. Times are medians of ``--rounds``. Each model makes one pass before it is timed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.lib.format import open_memmap

from dsmi_zoo._util import files
from dsmi_zoo._util.files import (
    damage_problem,
    file_sha256,
    flush_folder,
    move_checksummed,
    write_atomically,
)
from dsmi_zoo.data_catalog.datasets.imagenet import MEAN, STD
from dsmi_zoo.data_catalog.models.entry import Preprocessing
from dsmi_zoo.pipeline.embedding.embed import View, embed_inputs
from dsmi_zoo.pipeline.embedding.views import open_view
from dsmi_zoo.pipeline.networks.timm import choose_device
from dsmi_zoo.pipeline.store.embedding_file import PendingEmbedding
from dsmi_zoo.pipeline.store.run_folder import row_path

MODELS = ("resnet18", "tf_efficientnet_lite0", "resnet50", "vit_base_patch16_224")
PREPROCESSING = Preprocessing(crop_pct=0.875, mean=MEAN, std=STD)
SIDE = 224


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median time of a few rounds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def random_view(folder: Path, images: int) -> Path:
    """Write a view of random pixels in a run's format."""
    made, path = folder / "made", folder / "view.npy"
    view = open_memmap(made, "w+", np.uint8, (images, SIDE, SIDE, 3))
    generator = np.random.default_rng(0)
    for number in range(images):
        view[number] = generator.integers(0, 256, view.shape[1:], dtype=np.uint8)
    view.flush()
    move_checksummed(made, path)
    return path


def cost_of_flushes(folder: Path, rows: int = 200) -> tuple[float, float]:
    """Return the median seconds to store the files of a row, and those of them spent on flushing folders."""
    spent = [0.0]

    def timed_flush(path: Path) -> None:
        started = time.perf_counter()
        flush_folder(path)
        spent[-1] += time.perf_counter() - started

    files.flush_folder = timed_flush
    whole = []
    for number in range(rows):
        started = time.perf_counter()
        pending = PendingEmbedding(folder, f"model-{number}")
        pending.write("id", np.zeros((1000, 512), np.float32), {})
        pending.keep()
        write_atomically(
            row_path(folder, f"model-{number}"), lambda file: file.write(bytes(33_000))
        )
        whole.append(time.perf_counter() - started)
        spent.append(0.0)
    files.flush_folder = flush_folder
    return statistics.median(whole), statistics.median(spent[:-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    device = choose_device()
    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = random_view(Path(folder), given.images)
        read = seconds(lambda: file_sha256(path), given.rounds)
        damage_problem(path)
        again = seconds(lambda: damage_problem(path), 100)
        size = path.stat().st_size
        print(f"{name}; {given.images} images of {SIDE} x {SIDE}: {size / 1e6:.0f} MB")
        print(f"hash of the view, once a process: {read:.2f} s, {size / read / 1e9:.2f} GB/s")
        print(f"each further look at it: {1e6 * again:.0f} microseconds")
        stored, flushed = cost_of_flushes(Path(folder) / "out")
        print(
            f"storing a row: {1000 * stored:.1f} ms, {1000 * flushed:.1f} of them to flush folders"
        )
        for model in MODELS:
            network = timm.create_model(model, num_classes=1000).eval()
            saved = Path(folder) / "weights"
            torch.save(network.state_dict(), saved)
            of_weights = seconds(lambda saved=saved: file_sha256(saved), given.rounds)

            def embedded(network: torch.nn.Module = network) -> None:
                embed_inputs(network, View(open_view(path), PREPROCESSING), device)

            embedded()
            forward = seconds(embedded, given.rounds)
            rate, share = given.images / forward, (again + of_weights) / forward
            print(
                f"{model:24} forward passes {forward:7.2f} s, {rate:7.0f} images/s; hash of its weights "
                f"({saved.stat().st_size / 1e6:.0f} MB) {of_weights:.2f} s, {100 * share:.1f}% of that"
            )


if __name__ == "__main__":
    main()
