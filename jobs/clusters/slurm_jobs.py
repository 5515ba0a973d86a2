"""Slurm's jobs of workers by dask-jobqueue: as many as were asked for; those that have ended are replaced."""

import asyncio
import logging
import os
from contextlib import suppress
from typing import Any

from dask_jobqueue import SLURMCluster
from distributed.core import Status

from .local import LostWorkersComeBack

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
LOOK_AT_LEAST_EVERY_S = 600.0


class SlurmJobs(LostWorkersComeBack, SLURMCluster):
    """A cluster whose jobs are replaced once Slurm does not list them any more.

    Dask itself would cancel a job whose worker is away for a while, be it about to come back or requeued, and would
    replace neither a job of several workers nor one that ended before a worker came.
    """

    _looking: "asyncio.Task[None] | None" = None

    async def _start(self) -> None:
        self._have_come: set[str] = set()  # names of workers
        await super()._start()
        self._looking = asyncio.create_task(self._replace_ended_jobs())

    async def _close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await super()._close()

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Called by Dask when workers come or one goes."""
        if op == "add":
            self._have_come |= {worker["name"] for worker in msg["workers"].values()}
        super()._update_worker_status(op, msg)

    async def _replace_ended_jobs(self) -> None:
        """Forget jobs that have ended, so that Dask asks for others; ever more slowly while they end for nothing."""
        in_vain = 0
        while True:
            await asyncio.sleep(min(LOOK_EVERY_S * 2**in_vain, LOOK_AT_LEAST_EVERY_S))
            were_of_use = [self._forget(name) for name in await self._ended_jobs()]
            if were_of_use:
                in_vain = 0 if any(were_of_use) else in_vain + 1

    async def _ended_jobs(self) -> list[str]:
        """The names of jobs without workers that Slurm does not list among those that wait or run."""
        silent = {
            name: job.job_id
            for name, job in self.workers.items()
            if not self._workers_of(name) & self.observed
        }
        if not silent:
            return []
        with suppress(RuntimeError, OSError):  # Slurm does not answer now
            listing = ["squeue", "--noheader", "--all", f"--user={os.getuid()}", "--format=%A"]
            listed = set((await self.job_cls._call(listing)).split())
            return [name for name, number in silent.items() if number not in listed]
        return []

    def _forget(self, name: str) -> bool:
        """Take a job for ended; whether a worker of it had come."""
        job = self.workers.pop(name)
        job.status = Status.closed
        was_of_use = not self._workers_of(name).isdisjoint(self._have_come)
        self._have_come -= self._workers_of(name)
        if was_of_use:
            log.info(f"Slurm job {job.job_id} has ended; another one is asked for")
        else:
            logs = f"{job.log_directory}/{job.job_name}-{job.job_id}.err"
            log.warning(
                f"Slurm job {job.job_id} ended before a worker came (see {logs}); another one is asked for"
            )
        return was_of_use

    def _workers_of(self, job: str) -> set[str]:
        return {f"{job}{suffix}" for suffix in self.new_spec.get("group", [""])}
