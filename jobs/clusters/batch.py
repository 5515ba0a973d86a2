"""Slurm's batch jobs: their scripts, and the words of sbatch."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...data_catalog.errors import InputError
from ...data_catalog.text import is_printable, shown
from .profile import DriverJob, Profile

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
