"""All checks of the machine at hand."""

import os
import threading

import psutil

from ...pipeline.remote import is_offline
from ...pipeline.units import size_in_words
from ..clusters.machine import WORKER_MEMORY, usable_cores, visible_gpus
from .findings import Finding, Folders
from .folders import data_findings, writable_findings
from .gpus import ask_torch, gpu_findings, nvidia_driver
from .libraries import library_findings, slurm_finding

HUB_ANSWERS_WITHIN_S = 5.0


def check_machine(folders: Folders, *, wants_gpu: bool, wants_slurm: bool = False) -> list[Finding]:
    """All that can be told about this machine alone."""
    return [
        *library_findings(),
        slurm_finding(wants_slurm),
        *capacity_findings(),
        *gpu_findings(nvidia_driver(), ask_torch(), visible_gpus(), wants_gpu=wants_gpu),
        *writable_findings("cache", folders.cache),
        *(writable_findings("OUT", folders.out) if folders.out else ()),
        *(data_findings(folders.data_root) if folders.data_root else ()),
        hub_finding(),
    ]


def capacity_findings() -> list[Finding]:
    """Cores and memory that this process may use; batch systems and containers give less than the machine has."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    cores, all_cores = usable_cores(), os.cpu_count() or 1
    limited = f", limited to the time of {CPU_COUNT}" if cores > CPU_COUNT else ""
    memory = psutil.virtual_memory()
    most = min(MEMORY_LIMIT, memory.total)
    free = min(most, memory.available)
    enough, needed = free >= WORKER_MEMORY, size_in_words(WORKER_MEMORY)
    return [
        Finding(level="ok", what="cores", found=f"{cores} of {all_cores} usable{limited}"),
        Finding(
            level="ok" if enough else "problem",
            what="memory",
            found=f"{size_in_words(free)} free of {size_in_words(most)} usable",
            do=""
            if enough
            else f"a worker takes {needed}: end other programs, or ask for more memory",
        ),
    ]


def hub_finding() -> Finding:
    """Whether weights can be downloaded from here, by one request with a short limit."""
    from huggingface_hub import constants

    if is_offline():
        found = "HF_HUB_OFFLINE is set: weights come from the cache alone"
        return Finding(level="ok", what="hub", found=found)
    problem = _hub_problem(constants.ENDPOINT)
    if not problem:
        return Finding(level="ok", what="hub", found=f"{constants.ENDPOINT} answers")
    do = (
        "`dsmi-zoo prefetch` where it answers, then HF_HUB_OFFLINE=1 here; "
        "digits and checkpoints of your own need none"
    )
    return Finding(
        level="note", what="hub", found=f"{constants.ENDPOINT} does not answer ({problem})", do=do
    )


def _hub_problem(endpoint: str) -> str:
    """Ask in a thread: looking up a name has no limit of its own."""
    from huggingface_hub.utils import get_session

    answers: list[str] = []

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=HUB_ANSWERS_WITHIN_S)
            answers.append("")
        except Exception as error:
            answers.append(" ".join(str(error).split())[:100] or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_ANSWERS_WITHIN_S + 1)
    return answers[0] if answers else f"not within {HUB_ANSWERS_WITHIN_S:.0f} s"
