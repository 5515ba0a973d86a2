"""Workers as Slurm jobs; all talk TLS with credentials of the run's own."""

import importlib.util
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dask
from distributed import Client
from distributed.security import Security

from ...data_catalog.errors import InputError
from ...data_catalog.words import counted
from ...pipeline.config import ComputeSettings
from .batch import check_bare, slurm_command
from .driver_address import driver_address
from .local import SCHEDULING
from .profile import load_profile
from .worker_job import prologue, worker_arguments

if TYPE_CHECKING:
    from .slurm_jobs import SlurmJobs

log = logging.getLogger(__name__)

CREDENTIALS = ".credentials-"
ROLES = ("scheduler", "worker", "client")


@contextmanager
def slurm_cluster(
    settings: ComputeSettings, out: Path, modules: tuple[str, ...] = ()
) -> Iterator[Client]:
    """So many jobs of one-thread workers; the scheduler runs in this process and listens where the nodes reach it.

    Raises
    ------
    InputError
        When Slurm or dask-jobqueue is not there, no network leads to the nodes, or Slurm refuses the request.
    """
    SlurmJobs = _jobqueue()
    profile = load_profile(settings.profile)
    check_bare(out)
    host = driver_address(profile)
    jobs = settings.workers or profile.workers
    processes = profile.processes(settings.per_gpu)
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (
        dask.config.set(SCHEDULING),
        _credentials(out) as security,
        SlurmJobs(
            cores=processes,
            processes=processes,
            job_cpu=profile.cpus,
            memory=profile.memory.replace(" ", ""),
            walltime=profile.walltime,
            queue=profile.partition,
            account=profile.account,
            interface=profile.interface,
            protocol="tls://",
            security=security,
            scheduler_options={"host": host, "dashboard_address": "127.0.0.1:0"},
            worker_extra_args=worker_arguments(profile),
            job_name="dsmi-zoo",
            job_extra_directives=profile.requests(),
            job_script_prologue=prologue(profile, processes),
            python=profile.python or sys.executable,
            log_directory=str(logs),
            local_directory=str(profile.scratch) if profile.scratch else None,
            silence_logs="critical",
        ) as cluster,
    ):
        # The cluster would try refused ones for ever.
        slurm_command(["sbatch", "--test-only"], cluster.job_script())
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        log.info(
            f"{counted(jobs, 'Slurm job')} of {counted(processes, 'worker')} asked for; their logs: {logs}"
        )
        log.info(f"the workers reach this driver at {host}")
        with Client(cluster) as client:
            yield client


@contextmanager
def _credentials(out: Path) -> Iterator[Security]:
    """TLS credentials made for this run, in a folder that only the user can read, on the file system of the nodes."""
    for left in out.glob(f"{CREDENTIALS}*"):  # by a driver that was killed
        shutil.rmtree(left, ignore_errors=True)
    made = Security.temporary()
    with tempfile.TemporaryDirectory(prefix=CREDENTIALS, dir=out) as folder:
        files = {}
        for name in ("tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key"):
            file = Path(folder) / f"{name.removeprefix('tls_')}.pem"
            file.touch(0o600)
            file.write_text(getattr(made, name))
            files[name.removeprefix("tls_").removeprefix("scheduler_")] = str(file)
        roles = {f"tls_{role}_{kind}": files[kind] for role in ROLES for kind in ("cert", "key")}
        yield Security(tls_ca_file=files["ca_file"], require_encryption=True, **roles)


def _jobqueue() -> "type[SlurmJobs]":
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise InputError("--cluster slurm needs dask-jobqueue: pip install 'dsmi-zoo[slurm]'")
    from .slurm_jobs import SlurmJobs

    return SlurmJobs
