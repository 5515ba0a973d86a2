"""What this machine has: cores, memory, GPUs."""

import os
import subprocess
from collections.abc import Mapping

import psutil

from dsmi_zoo._util.errors import InputError

PROCESS_MEMORY = 4 * 2**30  # torch with CUDA, and a model of ordinary size
MOST_PER_GPU = 4  # processes, unless somebody asks for more: each holds torch and a model
WORKER_MEMORY = 1.5 * 2**30  # torch, timm and a small model with room for its embedding
BLAS_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(cores: int) -> int:
    """One worker a core, fewer when memory is short."""
    return max(1, min(cores, int(psutil.virtual_memory().available / WORKER_MEMORY)))


def blas_threads(workers: int) -> dict[str, str]:
    """Environment that shares the cores out among workers: Dask says 1 otherwise, and eigenvalues on one core crawl.

    What the user's environment says comes before it; OMP_NUM_THREADS serves for the others, as it does in MKL.
    """
    share = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // workers))
    return {name: os.environ.get(name) or share for name in BLAS_THREADS}


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that a process here may use, as CUDA_VISIBLE_DEVICES names them; those with MIG by their instances.

    torch would tell too, but the driver does not import it.
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
    """Processes for each GPU: one uses it while the others read, build and measure, on a core and with memory each."""
    return max(1, min(cores // gpus, MOST_PER_GPU, int(memory / PROCESS_MEMORY / gpus)))


def gpu_name() -> str:
    """What the first GPU of this machine is called."""
    after_its_number = _listed_by_the_driver().partition(": ")[2]
    return after_its_number.partition(" (UUID")[0] or "of unknown kind"


def _listed_by_the_driver() -> str:
    """A line for each GPU and each instance of one; nothing where there is no driver."""
    try:
        return subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
