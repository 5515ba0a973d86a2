"""Submit a run to Slurm: a driver job that starts its workers, or an array of shares without a driver."""

import logging
import re
import shlex
from collections.abc import Sequence

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.plan import make_plan

from ..clusters.profile import Profile, load_profile
from ..clusters.slurm.scripts import (
    batch_script,
    driver_requests,
    dsmi_zoo_command,
    interface_address,
    sbatch,
    slurm_command,
    worker_requests,
)
from ..progress import SILENT, Display
from .driver_lock import driver_lock
from .state import make_writable, open_out, with_scores_of_folder

log = logging.getLogger(__name__)

WARNING_S = 120  # before its walltime ends, a driver stops its workers and is requeued


def submit(
    config: RunConfig,
    arguments: Sequence[str],
    array: int | None,
    dry_run: bool,
    display: Display = SILENT,
) -> int:
    """Submit ``dsmi-zoo run ARGUMENTS``, whose settings are ``config``, to Slurm.

    Parameters
    ----------
    array
        The number of array tasks, each a balanced share on its own job's GPUs; a further job writes the report after
        them. None submits a driver that starts its workers.
    dry_run
        Print the scripts and submit nothing.

    Raises
    ------
    InputError
        When Slurm refuses (with Slurm's message), or the array is larger than the site allows.
    """
    profile = load_profile(config.compute.profile)
    if array is None:
        script_of = _driver_scripts(config, profile, arguments)
    else:
        script_of = _array_scripts(config, profile, arguments, array)
    if dry_run:
        for name, script in script_of.items():
            print(f"# {name}\n{script}")
        return 0
    if array is None and profile.interface is not None:
        interface_address(profile.interface)  # raises if missing; the driver's node should match
    if array is not None:
        _check_array_size(array)
    with display.status("Reading catalogue and images"):
        plan = make_plan(with_scores_of_folder(config))
    make_writable(config.folder)
    with driver_lock(config.folder):  # refuses if another driver is at work
        open_out(plan)
        (config.folder / "logs").mkdir(exist_ok=True)
    jobs: list[str] = []
    for name, script in script_of.items():
        jobs.append(sbatch(script, *(f"--dependency=afterany:{before}" for before in jobs[-1:])))
        log.info(f"job {jobs[-1]}: {name}")
    log.info(f"{counted(len(plan.jobs), 'model')}; logs in {config.folder / 'logs'}")
    log.info(
        f"how far it is: dsmi-zoo status --out {config.folder}; stop it: scancel {' '.join(jobs)}"
    )
    return 0


def _driver_scripts(
    config: RunConfig, profile: Profile, arguments: Sequence[str]
) -> dict[str, str]:
    words = [*dsmi_zoo_command(profile), "run", *arguments, "--cluster", "slurm"]
    if config.compute.profile is not None:
        words += ["--profile", str(config.compute.profile)]
    command = shlex.join(words)
    lines = [
        *profile.prologue,
        f"{command} &",
        "driver=$!",
        # Slurm signals the shell before the walltime ends and on preemption; finished rows are on disk. The driver gets
        # SIGTERM because background commands of a shell ignore SIGINT.
        "trap 'kill -TERM $driver; wait $driver; scontrol requeue $SLURM_JOB_ID' USR1",
        "trap 'kill -TERM $driver' TERM",
        "wait $driver; code=$?",
        "while kill -0 $driver 2>/dev/null; do wait $driver; code=$?; done",
        "exit $code",
    ]
    requests = [*driver_requests(profile), f"--signal=B:USR1@{WARNING_S}", "--requeue"]
    log = config.folder / "logs" / "driver-%j.out"
    return {"driver": batch_script("dsmi-zoo-driver", requests, log, lines)}


def _array_scripts(
    config: RunConfig, profile: Profile, arguments: Sequence[str], tasks: int
) -> dict[str, str]:
    words = [*dsmi_zoo_command(profile), "run", *arguments]
    if config.compute.per_gpu is None and profile.per_gpu is not None:
        words += ["--per-gpu", str(profile.per_gpu)]
    command = shlex.join(words)
    logs = config.folder / "logs"
    share = [*profile.prologue, f'exec {command} --share "$SLURM_ARRAY_TASK_ID/{tasks}"']
    requests = [*worker_requests(profile), f"--array=1-{tasks}", "--requeue"]
    report = [
        *profile.prologue,
        f"exec {shlex.join([*dsmi_zoo_command(profile), 'report', '--out', str(config.folder)])}",
    ]
    return {
        f"array of {tasks}": batch_script("dsmi-zoo", requests, logs / "share-%A_%a.out", share),
        "report": batch_script(
            "dsmi-zoo-report", driver_requests(profile), logs / "report-%j.out", report
        ),
    }


def _check_array_size(tasks: int) -> None:
    said = re.search(r"MaxArraySize\s*=\s*(\d+)", slurm_command(["scontrol", "show", "config"]))
    most = int(said.group(1)) - 1 if said else tasks
    if tasks > most:
        raise InputError(
            f"--array {tasks}: this Slurm takes at most {most} tasks of an array (MaxArraySize)"
        )
