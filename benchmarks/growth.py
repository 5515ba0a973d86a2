"""Growth of time and memory: measures with points, dimensions and classes, runs with entries, reports with rows.

    python benchmarks/growth.py --out docs/pictures/growth       all of it, half an hour on two cores
    python benchmarks/growth.py --only report --most 1600
    python benchmarks/growth.py --only page     reports as a user waits for them: processor seconds, bytes, Chromium

Each figure comes from a separate process and includes its peak memory. The exponent b of seconds ~ size^b is fitted to
the last three sizes, because small ones are dominated by one-off work. Data are drawn with seed 0. ``row`` is all
default row; ``DSE`` and ``DSMI`` are these two alone; ``dse-dsmi`` is the reference's DSE(Z) and DSMI(Z;Y).
``run`` has entries without work (``empty_models.py``), so only the graph, Dask and the files count. ``report`` has
synthetic rows; a page is usable once its explorer is drawn and idle in headless Chromium, the median of three times.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))  # for its synthetic rows and its browser
TYPICAL = {"n": 2000, "d": 512, "classes": 20}
Point = dict[str, Any]

CURVES = [
    ("row", "n", (500, 1000, 2000, 4000, 8000)),
    ("row", "d", (64, 256, 1024, 4096)),
    ("row", "classes", (2, 20, 100, 1000)),
    ("DSE", "n", (500, 1000, 2000, 4000, 8000, 16_000, 50_000)),
    ("DSMI", "n", (500, 1000, 2000, 4000, 8000, 16_000, 50_000)),
    ("dse-dsmi", "n", (500, 1000, 2000, 4000)),
    ("run", "entries", (48, 480, 1556, 10_000)),
    ("report", "rows", (48, 480, 1556, 5000, 10_000)),
]
PAGES = (48, 1556, 10_000)


def example(n: int, d: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an embedding, float32 [n, d], and classes of equal size."""
    generator = np.random.default_rng(0)
    labels = np.arange(n) % classes
    centres = generator.normal(size=(classes, d)).astype(np.float32)
    return generator.standard_normal((n, d), dtype=np.float32) + centres[labels] / 2, labels


def workload(what: str, sizes: dict[str, int]) -> Callable[[], object]:
    """Return the function to time, after all imports."""
    import torch  # noqa: F401 - or large eigenproblems would load it while timed

    from dsmi_zoo.pipeline.measures import (
        diffusion_spectral_entropy,
        diffusion_spectral_mutual_information,
        measure,
    )

    Z, labels = example(**sizes)
    few = slice(0, 4 * sizes["classes"])
    if what == "DSE":
        return lambda: diffusion_spectral_entropy(Z, precision="float32")
    if what == "DSMI":
        return lambda: diffusion_spectral_mutual_information(Z, labels, precision="float32")
    if what == "row":
        measure(Z[few], labels[few], input_clusters=labels[few], scores="default")
        return lambda: measure(Z, labels, input_clusters=labels, scores="default")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dse_dsmi import diffusion_spectral_entropy as entropy
        from dse_dsmi import diffusion_spectral_mutual_information as information

    sigma = float(np.sqrt(sizes["d"]))
    return lambda: (entropy(Z, sigma), information(Z, labels[:, None], gaussian_kernel_sigma=sigma))


def report_workload(rows_wanted: int, folder: Path) -> Callable[[], object]:
    """Return a function that writes a report of synthetic rows; beyond a whole zoo, they repeat under other names."""
    from synthetic_rows import RUN, synthetic_rows

    from dsmi_zoo.reports.page.build import write_page

    rows = synthetic_rows()
    rows = rows.iloc[
        np.resize(np.random.default_rng(0).permutation(len(rows)), rows_wanted)
    ].reset_index(drop=True)
    again = rows.groupby(["model", "img_size"]).cumcount()
    for column in ("model", "architecture", "row_id"):
        rows[column] = rows[column].where(again == 0, rows[column] + "-" + again.astype(str))
    # Errors must differ between models, as in a run; if not, the page would compress better.
    spread = np.random.default_rng(1)
    for column in rows.columns[rows.columns.str.endswith("_se")]:
        rows[column] *= np.exp(spread.normal(size=len(rows)) / 4)
    return lambda: write_page(rows, RUN, folder)


def measure_here(what: str, sizes: dict[str, int]) -> Point:
    """Measure seconds and MiB of one figure in this process."""
    with tempfile.TemporaryDirectory() as folder:
        is_page = what in ("report", "page")
        work = report_workload(sizes["rows"], Path(folder)) if is_page else workload(what, sizes)
        began, processor = time.perf_counter(), time.process_time()
        work()
        found = {
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - processor,
            "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        if what == "page":
            page = Path(folder) / "index.html"
            found |= {"page_mib": page.stat().st_size / 2**20, "usable": until_usable(page)}
    return found


def until_usable(page: Path) -> float:
    """Return the seconds until Chromium has drawn the page and its explorer, the median of three."""
    from browser import chromium, open_page

    seconds = []
    with tempfile.TemporaryDirectory() as downloads, chromium(Path(downloads)) as browser:
        for _ in range(3):
            began = time.perf_counter()
            open_page(browser, page)
            seconds.append(time.perf_counter() - began)
    return sorted(seconds)[1]


def measure_run(entries: int) -> Point:
    """Measure a run of empty entries, with the driver's memory."""
    command = [sys.executable, str(HERE / "empty_models.py"), "--models", str(entries)]
    output = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "seconds": output["milliseconds_a_model"] * entries / 1000,
        "mib": max(output["driver_pss_mib"]),
    }


def point(what: str, axis: str, size: int) -> Point:
    """Measure one figure in a separate process."""
    if what == "run":
        return {"size": size} | measure_run(size)
    sizes = {"rows": size} if axis == "rows" else TYPICAL | {axis: size}
    if axis == "classes":
        sizes["n"] = max(sizes["n"], 4 * size)
    command = [sys.executable, __file__, "--one", json.dumps([what, sizes])]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"size": size} | json.loads(output.splitlines()[-1])


def exponent(points: list[Point]) -> float:
    """Return the slope of log seconds on log size over the last three points."""
    last = points[-3:]
    return float(
        np.polyfit(np.log([p["size"] for p in last]), np.log([p["seconds"] for p in last]), 1)[0]
    )


def table(curves: dict[tuple[str, str], list[Point]]) -> str:
    """Return the figures in Markdown."""
    lines = ["| what | by | size: seconds (MiB) | exponent |", "| --- | --- | --- | ---: |"]
    for (what, axis), points in curves.items():
        figures = ", ".join(f"{p['size']:,}: {p['seconds']:.3g} ({p['mib']:,.0f})" for p in points)
        fitted = f"{exponent(points):.2f}" if len(points) > 2 else ""
        lines.append(f"| {what} | {axis} | {figures} | {fitted} |")
    return "\n".join(lines)


def pages(most: int) -> str:
    """Measure reports and their pages; return the figures in Markdown."""
    heads = ("rows", "seconds", "processor seconds", "MiB", "page, MiB", "usable after, s")
    lines = [f"| {' | '.join(heads)} |", "| ---: " * len(heads) + "|"]
    for size in (size for size in PAGES if size <= most):
        p = point("page", "rows", size)
        figures = (p["seconds"], p["processor_seconds"], p["mib"], p["page_mib"], p["usable"])
        lines.append(f"| {size:,} | {' | '.join(f'{figure:,.3g}' for figure in figures)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def picture(curves: dict[tuple[str, str], list[Point]], path: Path) -> None:
    """Draw seconds and memory against size on logarithmic axes, one panel per axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    axes = list(dict.fromkeys(axis for _, axis in curves))
    figure, panels = plt.subplots(
        2, len(axes), figsize=(3.2 * len(axes), 6), sharey="row", squeeze=False
    )
    for column, axis in enumerate(axes):
        for (what, of_axis), points in curves.items():
            if of_axis != axis:
                continue
            sizes = [p["size"] for p in points]
            panels[0, column].loglog(
                sizes, [p["seconds"] for p in points], "o-", label=what, markersize=4
            )
            panels[1, column].loglog(
                sizes, [p["mib"] for p in points], "o-", label=what, markersize=4
            )
        panels[1, column].set_xlabel(axis)
        sizes = sorted(
            {p["size"] for key, points in curves.items() if key[1] == axis for p in points}
        )
        for panel in panels[:, column]:
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=60, fontsize=8)
            panel.minorticks_off()
        panels[0, column].legend(frameon=False, fontsize=8)
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("greatest memory, MiB")
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*dict.fromkeys(what for what, _, _ in CURVES), "page"],
        help="these curves",
    )
    parser.add_argument("--most", type=int, default=50_000, help="leave larger sizes out")
    parser.add_argument("--out", type=Path, help="write OUT.png and OUT.json")
    parser.add_argument(
        "--add", type=Path, metavar="JSON", help="an earlier OUT.json, for what is not measured now"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_here(*json.loads(options.one))))
        return
    if options.only == ["page"]:
        print(pages(options.most))
        return
    earlier = json.loads(options.add.read_text()) if options.add else []
    curves: dict[tuple[str, str], list[Point]] = {
        (what, axis): points for what, axis, points in earlier
    }
    for what, axis, sizes in [
        curve for curve in CURVES if options.only is None or curve[0] in options.only
    ]:
        curves[what, axis] = []
        for size in (size for size in sizes if size <= options.most):
            curves[what, axis].append(point(what, axis, size))
            print(f"{what} {axis} {size}: {curves[what, axis][-1]}", file=sys.stderr, flush=True)
    print(table(curves))
    if options.out:
        picture(curves, options.out)
        options.out.with_suffix(".json").write_text(
            json.dumps([[*key, points] for key, points in curves.items()])
        )


if __name__ == "__main__":
    main()
