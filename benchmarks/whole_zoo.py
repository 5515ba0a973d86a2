"""Run of a whole catalogue, in which each network is really built, embeds the images and is measured.

Runs all entries of ``imagenet-2023`` with random weights on 20 photographs (crops of four that scikit-image ships), and
prints the results::

    python benchmarks/whole_zoo.py --out runs/whole-zoo [--minutes 120] [--workers 2] [OPTIONS OF run]

The same command resumes where it was stopped, by ``--minutes`` or otherwise. The output is also in
``OUT/whole-zoo.md``: rows, failures with their reasons, seconds by family, and the peak memory of the command with all
its processes, and of the largest one (sampled twice a second, over all runs into the same OUT).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import skimage.data
from digits_run import memory
from PIL import Image

from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
CROPS, SIDE = 5, 288
SECONDS = ["seconds_build", "seconds_embed", "seconds_measure"]
STOPS_WITHIN_S = 120


def write_images(root: Path) -> None:
    """Write five random crops (seed 0) of each photograph into one folder per class."""
    rng = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        photograph = Image.fromarray(getattr(skimage.data, name)())
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(CROPS):
            left, top = (int(rng.integers(0, size - SIDE + 1)) for size in photograph.size)
            photograph.crop((left, top, left + SIDE, top + SIDE)).save(
                root / name / f"{number}.png"
            )


def run(command: Sequence[str], minutes: float) -> tuple[int, dict[str, float]]:
    """Run the command for at most this number of minutes; return its exit code and peak memory in GiB."""
    until = time.monotonic() + 60 * minutes
    most = {"all": 0.0, "one": 0.0}
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            if time.monotonic() > until:
                process.terminate()  # not SIGINT, which shells make background commands ignore
                process.wait(STOPS_WITHIN_S)
                break
            for kind, held in held_by(process.pid).items():
                most[kind] = max(most[kind], held / 2**30)
            time.sleep(0.5)
    return process.returncode, most


def held_by(driver: int) -> dict[str, float]:
    """Return the bytes held by the driver and its processes together, and by the largest of them."""
    try:
        process = psutil.Process(driver)
        return {
            "all": memory(process),
            "one": max(map(resident, process.children(recursive=True)), default=0),
        }
    except psutil.NoSuchProcess:
        return {"all": 0, "one": 0}


def resident(process: psutil.Process) -> int:
    """Return the bytes held by one process."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def report(rows: pd.DataFrame, wanted: int, memory_gib: dict[str, float]) -> str:
    """Return the results in Markdown."""
    ok, failed = rows[rows["status"] == "ok"], rows[rows["status"] == "failed"]
    total = ok[SECONDS].sum(axis=1)
    by_family = ok.assign(total=total).groupby("family")
    table = by_family[[*SECONDS, "total"]].agg("median")
    table.insert(0, "rows", by_family.size())
    slowest, devices = ok.loc[total.idxmax(), "model"], ", ".join(set(ok["device"]))
    hours = total.sum() / 3600
    lines = [
        f"{len(rows)} rows of {wanted} entries: {len(ok)} ok, {len(failed)} failed, on {devices}. A row took "
        f"{total.median():.1f} s (median), {total.max():.0f} s at most ({slowest}), all of them {hours:.1f} hours "
        f"of processes. They held {memory_gib['all']:.1f} GiB together at most, one {memory_gib['one']:.1f} GiB.",
        "",
        *(
            f"- {row.model}@{row.img_size} failed: {row.error_type}: {row.error_message}"
            for row in failed.itertuples()
        ),
        "",
        "| family | rows | build | embed | measure | in all, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for family, row in table.sort_values("total", ascending=False).iterrows():
        seconds = " | ".join(f"{row[name]:.2f}" for name in (*SECONDS, "total"))
        lines.append(f"| {family} | {row['rows']:.0f} | {seconds} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run, then report; unknown options are passed to ``dsmi-zoo run``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--catalog", default="imagenet-2023")
    arguments, more = parser.parse_known_args()
    images, cache = (
        arguments.out.with_name(f"{arguments.out.name}-{what}") for what in ("images", "cache")
    )
    write_images(images)
    command = [
        sys.executable,
        "-m",
        "dsmi_zoo.jobs.cli.main",
        "run",
        "--catalog",
        arguments.catalog,
        "--random-weights",
    ]
    command += [
        "--dataset",
        "imagefolder",
        "--data-root",
        str(images),
        "--images-per-class",
        str(CROPS),
    ]
    command += ["--out", str(arguments.out), "--cache", str(cache), "--no-report", *more]
    code, memory_gib = run(command, arguments.minutes)
    noted = arguments.out / "whole-zoo.json"
    before = json.loads(noted.read_text()) if noted.exists() else {}
    memory_gib = {kind: max(held, before.get(kind, 0.0)) for kind, held in memory_gib.items()}
    noted.write_text(json.dumps(memory_gib))
    page = report(read_results(arguments.out), len(read_run(arguments.out).entries), memory_gib)
    (arguments.out / "whole-zoo.md").write_text(page)
    print(page)
    return code


if __name__ == "__main__":
    sys.exit(main())
