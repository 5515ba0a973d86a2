"""Workers as Slurm jobs, by dask-jobqueue: lost ones are replaced, all talk TLS with credentials of the run's own."""

import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client
from distributed.security import Security

from ...data_catalog.errors import InputError
from ...pipeline.config import ComputeSettings
from ..progress import counted
from .batch import check_bare, slurm_command
from .local import SCHEDULING
from .machine import BLAS_THREADS
from .profile import Profile, load_profile

log = logging.getLogger(__name__)

REPLACED_AFTER = "10s"
CREDENTIALS = ".credentials-"
ROLES = ("scheduler", "worker", "client")


@contextmanager
def slurm_cluster(settings: ComputeSettings, out: Path) -> Iterator[Client]:
    """So many one-thread workers as jobs; the scheduler runs in this process and listens on the profile's interface.

    Raises
    ------
    InputError
        When Slurm or dask-jobqueue is not there, the profile names no interface, or Slurm refuses the request.
    """
    SLURMCluster = _jobqueue()
    profile = load_profile(settings.profile)
    check_interface(profile, settings.profile)
    check_bare(out)
    wanted = settings.workers or profile.workers
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (
        dask.config.set({**SCHEDULING, "distributed.deploy.lost-worker-timeout": REPLACED_AFTER}),
        _credentials(out) as security,
        SLURMCluster(
            cores=1,
            processes=1,
            job_cpu=profile.cpus,
            memory=profile.memory.replace(" ", ""),
            walltime=profile.walltime,
            queue=profile.partition,
            account=profile.account,
            interface=profile.interface,
            protocol="tls://",
            security=security,
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
            # Without a dashboard, too, a worker listens for HTTP: by default on every address.
            worker_extra_args=["--no-dashboard", "--dashboard-address", "127.0.0.1:0"],
            job_name="dsmi-zoo",
            job_extra_directives=profile.requests(),
            job_script_prologue=prologue(profile),
            python=profile.python or sys.executable,
            log_directory=str(logs),
            local_directory=str(profile.scratch) if profile.scratch else None,
            silence_logs="critical",
        ) as cluster,
    ):
        slurm_command(["sbatch", "--test-only"], cluster.job_script())  # the cluster would try refused ones for ever
        cluster.adapt(minimum=wanted, maximum=wanted)
        log.info(f"{counted(wanted, 'Slurm job')} asked for; their logs: {logs}")
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


def _jobqueue() -> type:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError("--cluster slurm needs dask-jobqueue: pip install 'dsmi-zoo[slurm]'") from None
    return SLURMCluster


def check_interface(profile: Profile, path: Path | None) -> None:
    """Raise InputError unless the profile says which network the nodes share, and this machine has it."""
    import psutil

    there = sorted(psutil.net_if_addrs())
    if profile.interface is None:
        raise InputError(
            f"{path or '--cluster slurm'}: a --profile must name the network interface that the nodes share "
            f'(interface = "..."); this machine has {", ".join(there)}'
        )
    if profile.interface not in there:
        raise InputError(f"{path}: this machine has no network interface {profile.interface!r}, but {', '.join(there)}")


def prologue(profile: Profile) -> list[str]:
    """Shell lines before a worker starts: the site's own, and BLAS threads, which Dask would set to 1."""
    threads = {f"DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__{name}": profile.cpus for name in BLAS_THREADS}
    # Modules in the folder that a job starts in come after all libraries, not first.
    return [
        *profile.prologue,
        "export PYTHONSAFEPATH=1",
        *(f"export {name}={value}" for name, value in threads.items()),
    ]
