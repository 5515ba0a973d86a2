"""CPU seconds of planning a run on a folder of many images: the listing with its account, copies, and the rest.

    python benchmarks/inventory.py --files 50000

The files have random content of 15 to 25 kB, so their sizes collide; they are deleted afterwards. "drawn" is a run with
50 images per class, which hashes few files, so copies are looked for by size and beginning.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.pipeline.config.run import RunConfig, SubsetSettings
from dsmi_zoo.pipeline.plan.plan import make_plan
from dsmi_zoo.pipeline.plan.subset import open_subset


def cpu_seconds(work: Callable[[], object], times: int = 3) -> float:
    """Return the least of several measurements."""
    seconds = []
    for _ in range(times):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


def make_files(root: Path, files: int, classes: int = 20) -> None:
    """Write random files, spread evenly over class folders."""
    generator = np.random.default_rng(0)
    for number in range(files):
        folder = root / f"class{number % classes:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        content = generator.bytes(int(generator.integers(15_000, 25_000)))
        (folder / f"IMG_{number:06d}.jpg").write_bytes(content)


def main() -> None:
    """Print one line per kind of run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=50_000)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "set"), Path(folder, "cache")
        make_files(root, files)
        listing = cpu_seconds(lambda: open_dataset("imagefolder", root))
        for kind, drawn in (("all", None), ("drawn", 50)):
            subset = SubsetSettings(dataset="imagefolder", data_root=root, images_per_class=drawn)
            with_copies = subset.model_copy(update={"keep_copies": True})
            config = RunConfig(catalog="imagenet-2025", models=("resnet18*",), subset=subset)
            plan = cpu_seconds(lambda config=config: make_plan(config))  # type: ignore[misc]
            sought, kept = (
                cpu_seconds(lambda settings=settings: open_subset(settings, 1, cache))  # type: ignore[misc]
                for settings in (subset, with_copies)
            )
            print(
                f"{kind}: plan {plan:.2f} s, listing {listing:.2f} s, copies {sought - kept:.2f} s"
            )


if __name__ == "__main__":
    main()
