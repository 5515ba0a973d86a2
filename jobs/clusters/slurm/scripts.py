"""Batch scripts for Slurm, its commands, and the address at which its nodes reach this machine."""

import ipaddress
import math
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import is_printable, shown

from ..local import SCHEDULING
from ..machine import BLAS_THREADS
from ..profile import DriverJob, Profile, walltime_seconds
from .preload import RETIRES_AT

HINT = "set this site's partition, account and limits in a --profile"
# Workers retire this long before the job ends, at most a sixth of its walltime: most models finish in that time.
RETIRE_BEFORE_END_S = 600
MIN_TO_RETIRE_S = 600  # in a shorter job, retiring early saves nothing
NODES_ASKED = 16  # looking up an unknown name may take seconds
ANY_PORT = 9


def driver_requests(profile: Profile) -> list[str]:
    """Return the sbatch options of a driver job, which computes nothing itself."""
    return [*_common(profile, profile.driver), *profile.driver.directives]


def worker_requests(profile: Profile) -> list[str]:
    """Return the sbatch options of a job that computes as the worker jobs do."""
    return [*_common(profile, profile), *profile.requests()]


def _common(profile: Profile, job: Profile | DriverJob) -> list[str]:
    from dask.utils import parse_bytes

    partition = job.partition or profile.partition
    megabytes = math.ceil(parse_bytes(job.memory) / 2**20)
    return [
        *([f"--partition={partition}"] if partition else []),
        *([f"--account={profile.account}"] if profile.account else []),
        f"--cpus-per-task={job.cpus}",
        f"--mem={megabytes}M",
        f"--time={job.walltime}",
    ]


def dsmi_zoo_command(profile: Profile) -> list[str]:
    """Return the path of the dsmi-zoo script next to the profile's Python, as a command."""
    return [str(Path(profile.python or sys.executable).with_name("dsmi-zoo"))]


def batch_script(name: str, requests: Iterable[str], log: Path, lines: Iterable[str]) -> str:
    """Return a script for sbatch that runs ``lines`` in the current folder.

    Parameters
    ----------
    log
        The job's output file. Slurm expands ``%j`` and the like in the file's name; in its folder they are literal.

    Raises
    ------
    InputError
        When a line contains control characters, or the log's folder contains quotes or backslashes.
    """
    folder = str(log.parent)
    if '"' in folder or "\\" in folder:
        raise InputError(
            f"--out: Slurm takes no quotes and no backslashes in the folder of logs {shown(folder)}"
        )
    directives = [
        f"--job-name={name}",
        f'--output="{folder.replace("%", "%%")}/{log.name}"',
        "--open-mode=append",
        "--ntasks=1",
        *requests,
    ]
    script = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {directive}" for directive in directives),
        f"cd {shlex.quote(str(Path.cwd()))}",
        *lines,
    ]
    for line in script:
        if not is_printable(line.replace("\t", " ")):
            problem = "holds a control character or is not UTF-8; remove it from the paths, arguments or --profile"
            raise InputError(f"a line of the batch script, {shown(line, 200)}, {problem}")
    return "\n".join(script) + "\n"


def check_needs_no_quotes(out: Path) -> None:
    """Raise InputError unless Slurm and a shell can read the folder without quotes."""
    if not re.fullmatch(r"[\w@+=:,./-]+", str(out)):
        raise InputError(
            f"--out: dask-jobqueue takes no blanks, quotes or special characters of a shell in the folder of logs "
            f"{shown(str(out))}; choose another"
        )


def sbatch(script: str, *options: str) -> str:
    """Submit a script, and return the job's number.

    Raises
    ------
    InputError
        With Slurm's own message, when it refuses the job or is missing.
    """
    return slurm_command(["sbatch", "--parsable", *options], script).strip().partition(";")[0]


def slurm_command(command: Sequence[str], standard_input: str = "") -> str:
    """Return what one of Slurm's commands prints.

    Raises
    ------
    InputError
        With Slurm's own message, when it fails or is missing.
    """
    try:
        done = subprocess.run(
            command, input=standard_input, capture_output=True, text=True, timeout=120
        )
    except FileNotFoundError:
        raise InputError(
            f"this machine has no {command[0]}; use a login node of the cluster"
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(
            f"Slurm does not answer {command[0]} within 2 minutes; try again later"
        ) from None
    if done.returncode:
        hint = f"; {HINT}" if command[0] == "sbatch" else ""
        raise InputError(f"Slurm refuses: {error_message(done.stderr)}{hint}")
    return done.stdout


def error_message(errors: str) -> str:
    """Return what a Slurm command wrote to stderr, in one line."""
    lines = [line.partition("error: ")[2] or line for line in errors.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(line.strip() for line in lines)) or "no message given"


def prologue(profile: Profile, processes: int) -> list[str]:
    """Return the shell lines to run before the worker processes start: the site's own, Dask's and our settings."""
    threads = max(1, profile.cpus // processes)
    lines = [
        *profile.prologue,
        "export PYTHONSAFEPATH=1",  # keep the job's folder off the front of sys.path
        # Values the job has already set are kept. Dask's `pre-spawn-environ` cannot be used: Dask lower-cases keys that
        # come from environment variables.
        f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{threads}}}"',
        *(f'export {name}="${{{name}:-$OMP_NUM_THREADS}}"' for name in BLAS_THREADS[1:]),
    ]
    for name, value in SCHEDULING.items():
        if name.startswith("distributed.worker."):
            variable = f"DASK_{name}".upper().replace(".", "__").replace("-", "_")
            lines.append(f"export {variable}={shlex.quote(str(value))}")
    seconds = retires_after(profile.walltime)
    if seconds is not None:
        lines.append(f"export {RETIRES_AT}=$(( $(date +%s) + {seconds} ))")
    return lines


def worker_arguments(profile: Profile) -> list[str]:
    """Return the arguments of ``dask worker`` beyond jobqueue's."""
    preload = f"{__package__}.preload"
    return [
        # Even without a dashboard a worker listens for HTTP, by default on every address.
        *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
        # Each process may use all of the job's memory, because a big model may need most of it while others wait; Slurm
        # limits their sum.
        *("--memory-limit", profile.memory.replace(" ", "")),
        *("--preload", preload, "--preload-nanny", preload),
    ]


def retires_after(walltime: str) -> int | None:
    """Return the seconds after which the workers of a job with this walltime retire; None for never."""
    seconds = walltime_seconds(walltime)
    if seconds < MIN_TO_RETIRE_S:
        return None
    return seconds - min(RETIRE_BEFORE_END_S, seconds // 6)


def driver_address(profile: Profile) -> str:
    """Return this machine's address on the profile's interface, or else on the route to Slurm's nodes.

    Raises
    ------
    InputError
        When this machine has no such interface, or no route to the nodes.
    """
    if profile.interface is not None:
        return interface_address(profile.interface)
    nodes = slurm_command(["sinfo", "--noheader", "--Node", "--format=%o"]).split()
    return address_towards(nodes)


def interface_address(interface: str) -> str:
    """Return the IPv4 address of this machine on a network interface.

    Raises
    ------
    InputError
        When there is no such interface, or it has no address.
    """
    import psutil
    from distributed.utils import get_ip_interface

    there = psutil.net_if_addrs()
    if interface not in there:
        raise InputError(
            f"--profile: this machine has no network interface {interface!r}, but {_names(there)}"
        )
    try:
        return str(get_ip_interface(interface))
    except ValueError:
        raise InputError(
            f"--profile: {interface} has no IPv4 address here; name another interface"
        ) from None


def address_towards(nodes: Iterable[str]) -> str:
    """Return the address from which this machine reaches the nodes.

    The address of its host name may be on another network; on Debian it is 127.0.1.1.

    Raises
    ------
    InputError
        When there is no route to a node, or only the loopback interface although there are other machines.
    """
    addresses = [own_address(node) for node in islice(dict.fromkeys(nodes), NODES_ASKED)]
    for address in addresses:
        if address is not None and not ipaddress.ip_address(address).is_loopback:
            return address
    if addresses and addresses[0] is not None and None not in addresses:
        return addresses[0]  # Slurm runs on this machine alone
    import psutil

    raise InputError(
        "--cluster slurm: no network is found that leads from here to the nodes; name the interface that they share in "
        f'a --profile (interface = "..."); this machine has {_names(psutil.net_if_addrs())}'
    )


def own_address(other: str) -> str | None:
    """Return the address from which this machine would send to another one, or None; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other, ANY_PORT))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _names(interfaces: Iterable[str]) -> str:
    return ", ".join(sorted(interfaces))
