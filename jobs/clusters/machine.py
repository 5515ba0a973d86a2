"""This machine's cores, memory and GPUs, and the numbers of workers and threads that fit them."""

import os
import subprocess
from collections.abc import Mapping

import psutil

from dsmi_zoo._util.errors import InputError

PROCESS_MEMORY = 4 * 2**30  # torch with CUDA, and a model of ordinary size
MAX_PER_GPU = 4  # default limit of processes: each holds torch and a model
WORKER_MEMORY = 1.5 * 2**30  # torch, timm and a small model with room for its embedding
BLAS_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(cores: int) -> int:
    """Return the default number of workers: one per core, fewer when memory is short."""
    return max(1, min(cores, int(psutil.virtual_memory().available / WORKER_MEMORY)))


def blas_threads(workers: int) -> dict[str, str]:
    """Return the variables that divide the cores among workers; with one thread, Dask's default, eigenvalues are slow.

    The user's own variables take precedence; OMP_NUM_THREADS applies to the others too, as it does in MKL.
    """
    share = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // workers))
    return {name: os.environ.get(name) or share for name in BLAS_THREADS}


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs that a process here may use, as CUDA_VISIBLE_DEVICES names them, or their MIG instances.

    The driver does not import torch, which could list them too.
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        listed = [gpu.strip() for gpu in chosen.split(",")]
        return [gpu for gpu in listed if gpu not in ("", "-1", "NoDevFiles")]
    gpus: list[str] = []
    for line in _listed_by_the_driver().splitlines():
        identity = line.rpartition("UUID: ")[2].rstrip(") ")
        if line.startswith("GPU "):
            gpus.append(identity)
        elif identity.startswith("MIG-"):
            if gpus and gpus[-1].startswith("GPU-"):
                gpus.pop()  # a GPU in this mode is used by its instances only
            gpus.append(identity)
    return gpus


def chosen_gpus(workers: int | None) -> list[str]:
    gpus = visible_gpus()
    if not gpus:
        raise InputError(
            "--cluster cuda: no GPU is visible (nvidia-smi -L, CUDA_VISIBLE_DEVICES); --cluster local uses CPUs"
        )
    if workers is not None and workers > len(gpus):
        raise InputError(
            f"--workers {workers}: only {len(gpus)} GPUs are visible (--per-gpu: how many share one)"
        )
    return gpus[:workers]


def default_per_gpu(cores: int, gpus: int, memory: float) -> int:
    """Return the number of processes per GPU: one uses it while the others read, build and measure on the CPU."""
    return max(1, min(cores // gpus, MAX_PER_GPU, int(memory / PROCESS_MEMORY / gpus)))


def gpu_name() -> str:
    """Return the name of this machine's first GPU."""
    after_its_number = _listed_by_the_driver().partition(": ")[2]
    return after_its_number.partition(" (UUID")[0] or "of unknown kind"


def _listed_by_the_driver() -> str:
    """Return one line per GPU and MIG instance; nothing where there is no driver."""
    try:
        return subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
