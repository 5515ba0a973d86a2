"""Slurm's batch jobs: their scripts, and the words of sbatch."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import is_printable, shown

from ..local import SCHEDULING
from ..machine import BLAS_THREADS
from ..profile import DriverJob, Profile, walltime_seconds
from .retiring import RETIRES_AT

MEND = "say in a --profile what this site has"


def driver_requests(profile: Profile) -> list[str]:
    """What a job asks for that computes nothing itself."""
    return [*_common(profile, profile.driver), *profile.driver.directives]


def worker_requests(profile: Profile) -> list[str]:
    """What a job asks for that computes as one of the profile's workers does."""
    return [*_common(profile, profile), *profile.requests()]


def _common(profile: Profile, job: Profile | DriverJob) -> list[str]:
    partition = job.partition or profile.partition
    return [
        *([f"--partition={partition}"] if partition else []),
        *([f"--account={profile.account}"] if profile.account else []),
        f"--cpus-per-task={job.cpus}",
        f"--mem={_megabytes(job.memory)}M",
        f"--time={job.walltime}",
    ]


def dsmi_zoo(profile: Profile) -> list[str]:
    """This command, as the profile's Python has it."""
    return [str(Path(profile.python or sys.executable).with_name("dsmi-zoo"))]


def batch_script(name: str, requests: Iterable[str], log: Path, lines: Iterable[str]) -> str:
    """A script for sbatch that runs ``lines`` in the folder where it was made.

    Parameters
    ----------
    log
        Where it writes; in the file's name, not in its folder's, ``%j`` and the like are Slurm's.

    Raises
    ------
    InputError
        When something would not stay in its line, or the folder of the log not in its quotes.
    """
    directives = [
        f"--job-name={name}",
        f'--output="{_folder(log)}/{log.name}"',
        "--open-mode=append",
        "--ntasks=1",
    ]
    head = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {directive}" for directive in [*directives, *requests]),
    ]
    script = [*head, f"cd {shlex.quote(str(Path.cwd()))}", *lines]
    for line in script:
        if not is_printable(line.replace("\t", " ")):
            told = "holds a control character or is not UTF-8; give paths, arguments and a --profile without such"
            raise InputError(f"a line of the batch script, {shown(line, 200)}, {told}")
    return "\n".join(script) + "\n"


def _folder(log: Path) -> str:
    """The folder of a log as Slurm reads it between quotes, where ``%`` begins one of its own names."""
    folder = str(log.parent)
    if '"' in folder or "\\" in folder:
        raise InputError(
            f"--out: Slurm takes no quotes and no backslashes in the folder of logs {shown(folder)}"
        )
    return folder.replace("%", "%%")


def check_bare(out: Path) -> None:
    """Raise InputError unless Slurm and a shell take the folder as it is, without quotes around it."""
    if not re.fullmatch(r"[\w@+=:,./-]+", str(out)):
        raise InputError(
            f"--out: dask-jobqueue takes no blanks, quotes or signs that a shell reads in the folder of logs "
            f"{shown(str(out))}; choose another"
        )


def sbatch(script: str, *options: str) -> str:
    """Submit a script; returns the job's number.

    Raises
    ------
    InputError
        With Slurm's own words, when it refuses the job or is not there.
    """
    asked = slurm_command(["sbatch", "--parsable", *options], script)
    return asked.strip().partition(";")[0]


def slurm_command(command: Sequence[str], given: str = "") -> str:
    """What one of Slurm's commands prints.

    Raises
    ------
    InputError
        With Slurm's own words, when it fails or is not there.
    """
    try:
        asked = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise InputError(
            f"this machine has no {command[0]}; use a login node of the cluster"
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(
            f"Slurm does not answer {command[0]} within 2 minutes; try again later"
        ) from None
    if asked.returncode:
        mend = f"; {MEND}" if command[0] == "sbatch" else ""
        raise InputError(f"Slurm refuses: {slurms_words(asked.stderr)}{mend}")
    return asked.stdout


def slurms_words(errors: str) -> str:
    """What a Slurm command said, in one line."""
    lines = [line.partition("error: ")[2] or line for line in errors.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(line.strip() for line in lines)) or "without a word"


def _megabytes(size: str) -> int:
    from dask.utils import parse_bytes

    return -(-int(parse_bytes(size)) // 2**20)


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
