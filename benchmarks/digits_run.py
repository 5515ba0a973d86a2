"""Time and peak memory of the whole digits run with nothing cached, with everything cached, and of ``--help``.

    python benchmarks/digits_run.py [--repeat 3]

Memory is the sum of the proportional set sizes (shared pages counted once) of the command and all its processes,
sampled twice a second. Each cold run has an empty cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import psutil


def measured(arguments: Sequence[str], cache: Path) -> tuple[float, float]:
    """Return seconds and peak GiB of one command with all its processes."""
    command = [str(Path(sys.executable).with_name("dsmi-zoo")), *arguments]
    started, peak = time.perf_counter(), 0
    environment = os.environ | {"DSMI_ZOO_CACHE": str(cache)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, memory(psutil.Process(process.pid)))
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, peak / 2**30


def memory(process: psutil.Process) -> int:
    """Return the bytes held by the process and its descendants."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def main() -> None:
    """Print the median time and the peak memory of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    cold, warm, helped = [], [], []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            run = ["run", "--out", f"{folder}/out"]
            cold.append(measured(run, Path(folder) / "cache"))
            warm.append(measured(run, Path(folder) / "cache"))
            helped.append(measured(["--help"], Path(folder)))
    for name, figures in (("cold run", cold), ("second run", warm), ("--help", helped)):
        seconds = [f[0] for f in figures]
        print(
            f"{name}: median {median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
            f"peak {max(f[1] for f in figures):.2f} GiB, {os.cpu_count()} cores, {repeat} runs"
        )


if __name__ == "__main__":
    main()
