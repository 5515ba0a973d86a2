"""What the job of workers has beside its request: the lines before they start, and the arguments of ``dask worker``."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from .local import SCHEDULING
from .machine import BLAS_THREADS
from .profile import Profile, walltime_seconds
from .retiring import RETIRES_AT

RETIRE_BEFORE_END_S = 600  # long enough for most models to be finished
SHORTEST_TO_RETIRE_S = 600  # in a shorter walltime there is nothing to be gained


def prologue(profile: Profile, processes: int) -> list[str]:
    """Shell lines before the worker processes start: the site's own, and settings, of Dask's and ours."""
    settings = {
        name: value for name, value in SCHEDULING.items() if name.startswith("distributed.worker.")
    }
    return [
        *profile.prologue,
        "export PYTHONSAFEPATH=1",  # modules in the folder that a job starts in come after all libraries, not first
        *blas_exports(max(1, profile.cpus // processes)),
        *dask_exports(settings),
        *_retirement(profile),
    ]


def blas_exports(threads: int) -> Iterator[str]:
    """Shell lines for the threads of each process, which Dask sets to 1 otherwise; what the job has already stays.

    Dask's own setting for it, ``pre-spawn-environ``, cannot be made by environment: it would be in small letters.
    """
    yield f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{threads}}}"'
    for name in BLAS_THREADS[1:]:
        yield f'export {name}="${{{name}:-$OMP_NUM_THREADS}}"'


def dask_exports(settings: Mapping[str, Any]) -> Iterator[str]:
    """Shell lines that hand Dask's settings to processes which are started elsewhere."""
    for name, value in settings.items():
        variable = f"DASK_{name}".upper().replace(".", "__").replace("-", "_")
        yield f"export {variable}={shlex.quote(str(value))}"


def worker_arguments(profile: Profile) -> list[str]:
    """Further arguments of ``dask worker``."""
    return [
        # Without a dashboard, too, a worker listens for HTTP: by default on every address.
        *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
        # Processes of a job share its memory, each as much as it needs: a big model may take most of it while its
        # neighbours wait. What all of them take together is for Slurm to judge.
        *("--memory-limit", profile.memory.replace(" ", "")),
        *("--preload", f"{__package__}.retiring"),
        *("--preload-nanny", f"{__package__}.nannies"),
    ]


def retires_after(walltime: str) -> int | None:
    """Seconds after which the workers of a job with this walltime retire; None for never."""
    seconds = walltime_seconds(walltime)
    return (
        seconds - min(RETIRE_BEFORE_END_S, seconds // 6)
        if seconds >= SHORTEST_TO_RETIRE_S
        else None
    )


def _retirement(profile: Profile) -> list[str]:
    seconds = retires_after(profile.walltime)
    return [] if seconds is None else [f"export {RETIRES_AT}=$(( $(date +%s) + {seconds} ))"]
