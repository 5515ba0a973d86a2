"""Start-up time and cost of workers that are forked from a process with torch and timm, or spawned.

    python benchmarks/worker_start.py [--workers 2 12]

Prints for each start method: seconds until every worker of a cluster has run a model, for the first cluster of a
process and for a second one; memory (Pss) of a worker; and processor-seconds of a whole ``dsmi-zoo run`` of one model
and 20 images, including those of processes that it leaves behind.
"""

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from dsmi_zoo.jobs.workers import open_workers
from dsmi_zoo.pipeline.config.run import ComputeSettings

WAYS = ("spawn", "fork")
# PR_SET_CHILD_SUBREAPER: orphans become children of this process, and are counted
BECOME_SUBREAPER = 36
RUN = ("run", "--models", "test_vit.100x3", "--images-per-class", "2")


def run_a_model() -> int:
    """Pass an image through a network, after importing torch and timm if needed; return the process id."""
    import timm
    import torch

    with torch.inference_mode():
        timm.create_model("test_vit").eval()(torch.zeros(1, 3, 160, 160))
    return os.getpid()


def start(way: str, workers: int) -> None:
    """Print the figures of two clusters, one after the other."""
    settings = ComputeSettings(cluster="local", workers=workers, start_method=way)
    for which in ("first", "second"):
        started = time.perf_counter()
        with open_workers(settings, Path.cwd()) as there:
            there.client.wait_for_workers(workers)
            pids = there.client.run(run_a_model).values()
            seconds = time.perf_counter() - started
            sizes = sorted(psutil.Process(pid).memory_full_info().pss / 2**20 for pid in pids)
        median = sizes[len(sizes) // 2]
        print(
            f"{way:5} {workers:2} workers, {which} cluster: {seconds:5.1f} s, "
            f"Pss of a worker {median:.0f} MiB (median)",
            flush=True,
        )


def run(way: str, *further: str) -> None:
    """Print the processor-seconds of the command and of all processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        command = [str(Path(sys.executable).with_name("dsmi-zoo")), *RUN, "--out", out, *further]
        subprocess.run([*command, "--start-method", way], check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{way:5} one model, 20 images {' '.join(further)}: {spent:5.1f} processor-seconds, {wall:5.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 12])
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        for workers in options.workers:
            start(options.only, workers)
        return
    ctypes.CDLL(None).prctl(BECOME_SUBREAPER, 1, 0, 0, 0)
    for way in WAYS:
        for workers in options.workers:
            # Each in a separate process: a fork server would also serve the next cluster.
            alone = [sys.executable, __file__, "--only", way, "--workers", str(workers)]
            subprocess.run(alone, check=True)
    for _ in range(2):
        for way in WAYS:
            run(way)
            run(way, "--no-report")


if __name__ == "__main__":
    main()
