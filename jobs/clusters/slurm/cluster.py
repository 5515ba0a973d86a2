"""Workers as Slurm jobs, which communicate by TLS with credentials made for the run."""

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
from dask_jobqueue import SLURMCluster
from distributed import Client
from distributed.core import Status
from distributed.security import Security

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.config.run import ComputeSettings

from ..local import SCHEDULING, LostWorkersComeBack
from ..profile import load_profile
from .scripts import (
    check_needs_no_quotes,
    driver_address,
    prologue,
    slurm_command,
    worker_arguments,
)

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
LOOK_AT_LEAST_EVERY_S = 600.0


class SlurmJobs(LostWorkersComeBack, SLURMCluster):
    """A cluster that replaces jobs once Slurm no longer lists them.

    Dask itself would cancel a job whose worker is lost for a while, even if it is requeued, and would replace neither a
    job of several workers nor one that ended before its first worker connected.
    """

    _looking: "asyncio.Task[None] | None" = None

    async def _start(self) -> None:
        self._connected: set[str] = set()  # names of workers
        await super()._start()
        self._looking = asyncio.create_task(self._replace_ended_jobs())

    async def _close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await super()._close()

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Note the names of workers that arrive; Dask calls this when workers arrive or one leaves."""
        if op == "add":
            self._connected |= {worker["name"] for worker in msg["workers"].values()}
        super()._update_worker_status(op, msg)

    async def _replace_ended_jobs(self) -> None:
        """Forget ended jobs, so that Dask submits new ones; look ever more rarely while jobs end without workers."""
        failures = 0
        while True:
            await asyncio.sleep(min(LOOK_EVERY_S * 2**failures, LOOK_AT_LEAST_EVERY_S))
            had_workers = [self._forget(name) for name in await self._ended_jobs()]
            if had_workers:
                failures = 0 if any(had_workers) else failures + 1

    async def _ended_jobs(self) -> list[str]:
        """Return the names of jobs without workers that Slurm does not list as waiting or running."""
        silent = {
            name: job.job_id
            for name, job in self.workers.items()
            if not self._workers_of(name) & self.observed
        }
        if not silent:
            return []
        with suppress(RuntimeError, OSError):  # Slurm does not answer
            listing = ["squeue", "--noheader", "--all", f"--user={os.getuid()}", "--format=%A"]
            listed = set((await self.job_cls._call(listing)).split())
            return [name for name, number in silent.items() if number not in listed]
        return []

    def _forget(self, name: str) -> bool:
        """Treat a job as ended; return whether a worker of it had connected."""
        job = self.workers.pop(name)
        job.status = Status.closed
        had_worker = not self._workers_of(name).isdisjoint(self._connected)
        self._connected -= self._workers_of(name)
        if had_worker:
            log.info(f"Slurm job {job.job_id} has ended; submitting another one")
        else:
            logs = f"{job.log_directory}/{job.job_name}-{job.job_id}.err"
            log.warning(
                f"Slurm job {job.job_id} ended before a worker connected (see {logs}); submitting another one"
            )
        return had_worker

    def _workers_of(self, job: str) -> set[str]:
        return {f"{job}{suffix}" for suffix in self.new_spec.get("group", [""])}


CREDENTIALS = ".credentials-"
ROLES = ("scheduler", "worker", "client")


@contextmanager
def slurm_cluster(settings: ComputeSettings, out: Path) -> Iterator[Client]:
    """Submit jobs of one-thread workers; the scheduler runs in this process and listens where the nodes reach it.

    Raises
    ------
    InputError
        When Slurm is missing, no network leads to the nodes, or Slurm refuses the request.
    """
    profile = load_profile(settings.profile)
    check_needs_no_quotes(out)
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
        # Test the request first: the cluster would submit refused jobs for ever.
        slurm_command(["sbatch", "--test-only"], cluster.job_script())
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        log.info(
            f"{counted(jobs, 'Slurm job')} of {counted(processes, 'worker')} submitted; their logs: {logs}"
        )
        log.info(f"the workers reach this driver at {host}")
        with Client(cluster) as client:
            yield client


@contextmanager
def _credentials(out: Path) -> Iterator[Security]:
    """Make TLS credentials for this run, in a folder on the nodes' file system that only the user can read."""
    for left in out.glob(f"{CREDENTIALS}*"):  # by a killed driver
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
