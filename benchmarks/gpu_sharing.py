"""Utilisation of a GPU by several processes that take turns on it, and whether the embeddings stay the same.

Runs the same models with random weights (one from each of ``--models-of`` families, all with one preprocessing) with 1,
2, 3, ... processes per GPU. Prints for each number the total time and the share of it in which the GPU was busy, from
the times in the rows::

    python benchmarks/gpu_sharing.py --folder FOLDER [--per-gpu 1 2 3 4 6] [--images 2000] [--models-of 24]

The images are noise, as content does not matter. The first run, of one model, only makes the view and is not counted.
Without a GPU, try the script with ``--cluster local``, where all processes compute at the same time.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.pipeline.store.run_folder import read_results

CLASSES, SIDE = 20, 256
MAX_PARAMETERS_M = 100.0
SECONDS = ["seconds_build", "seconds_embed", "seconds_measure"]


def write_images(root: Path, images: int) -> None:
    """Write images of noise (seed 0) into one folder per class."""
    rng = np.random.default_rng(0)
    for number in range(images):
        folder = root / f"{number % CLASSES:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE)).save(folder / f"{number}.jpg")


def chosen(families: int) -> list[str]:
    """Return the median model by multiply-adds of each of ``families`` families, all of the commonest preprocessing."""
    entries = load_models("imagenet-2023")
    view = Counter((entry.img_size, str(entry.preprocessing)) for entry in entries).most_common(1)[
        0
    ][0]
    table = pd.DataFrame(
        [
            {"model": entry.model, "family": entry.family, "gmacs": entry.extras["gmacs"]}
            for entry in entries
            if (entry.img_size, str(entry.preprocessing)) == view
            and (entry.params_m or 0) <= MAX_PARAMETERS_M
        ]
    ).sort_values(["family", "gmacs"])
    median = table.groupby("family").apply(lambda family: family.iloc[len(family) // 2]["model"])
    return list(median.iloc[np.linspace(0, len(median) - 1, families).astype(int)])


def run(folder: Path, name: str, models: Sequence[str], more: Sequence[str]) -> pd.DataFrame:
    """Compute the rows of these models from scratch."""
    command = [
        sys.executable,
        "-m",
        "dsmi_zoo.jobs.cli.main",
        "run",
        "--catalog",
        "imagenet-2023",
        "--random-weights",
    ]
    command += [
        "--models",
        *models,
        "--dataset",
        "imagefolder",
        "--data-root",
        str(folder / "images"),
    ]
    command += ["--cache", str(folder / "cache"), "--out", str(folder / name)]
    subprocess.run(
        [*command, "--no-report", "--drop-embeddings", *more], check=True, stdout=sys.stderr
    )
    return read_results(folder / name)


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--per-gpu", type=int, nargs="+", default=[1, 2, 3, 4, 6])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--models-of", type=int, default=24)
    parser.add_argument("--cluster", choices=("cuda", "local"), default="cuda")
    options = parser.parse_args()
    compare(options.folder, options.per_gpu, options.images, options.models_of, options.cluster)


def compare(
    folder: Path, per_gpu: Sequence[int], images: int, models_of: int, cluster: str
) -> None:
    """Run the models once for each number of processes, and print a line for each."""
    write_images(folder / "images", images)
    models = chosen(models_of)
    run(folder, "first", models[:1], ["--cluster", cluster, "--workers", "1"])
    how = "--per-gpu" if cluster == "cuda" else "--workers"
    print(
        "| processes per GPU | rows ok | seconds | GPU busy | a row: build, embed, measure, s | same embeddings |\n"
        "| ---: | ---: | ---: | ---: | --- | ---: |"
    )
    first = None
    for processes in per_gpu:
        rows = run(folder, str(processes), models, ["--cluster", cluster, how, str(processes)])
        first = rows if first is None else first
        print(line(processes, rows, first), flush=True)


def line(processes: int, rows: pd.DataFrame, first: pd.DataFrame) -> str:
    """Return a line of the table: ``rows`` compared with those of the first run."""
    own_s = pd.to_timedelta(rows[SECONDS].sum(axis=1), unit="s")
    ended = pd.to_datetime(rows["finished_at"])
    seconds = (ended.max() - (ended - own_s).min()).total_seconds()
    wanted = first.set_index("model")["embedding_sha256"]
    same = rows.set_index("model")["embedding_sha256"].eq(wanted).sum()
    typical = ", ".join(f"{rows[name].median():.2f}" for name in SECONDS)
    return (
        f"| {processes} | {rows['status'].eq('ok').sum()} of {len(rows)} | {seconds:.1f} | "
        f"{rows['seconds_embed'].sum() / seconds:.0%} | {typical} | {same} of {len(rows)} |"
    )


if __name__ == "__main__":
    main()
