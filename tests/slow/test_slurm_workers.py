"""Workers in jobs of a real Slurm: their GPUs, settings and retirement, and the jobs that are replaced."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import psutil
import pytest
from distributed import Client, get_worker
from processes import free_port, start_dask, stop

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.clusters.local import SCHEDULING
from dsmi_zoo.jobs.clusters.machine import BLAS_THREADS
from dsmi_zoo.jobs.clusters.profile import Profile, load_profile, walltime_seconds
from dsmi_zoo.jobs.clusters.slurm.cluster import slurm_cluster
from dsmi_zoo.jobs.clusters.slurm.preload import RETIRES_AT
from dsmi_zoo.jobs.clusters.slurm.scripts import address_towards, retires_after
from dsmi_zoo.pipeline.config.run import ComputeSettings

PROFILE = """
gpus = 2
per_gpu = 2
cpus = 8
memory = "2GB"
walltime = "1:00:00"
workers = 1
prologue = ["[ -e {flag} ] || {{ touch {flag}; exit 1; }}"]
"""
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this file
OF_DASK = [name for name in SCHEDULING if name.startswith("distributed.worker.")]


def seen_by(dask_worker: Any) -> dict[str, Any]:
    """Return the GPU, job, settings, limits and addresses of a worker."""
    listening = [
        c.laddr.ip
        for c in psutil.Process().net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    ]
    return {
        "gpu": os.environ["CUDA_VISIBLE_DEVICES"],
        "job": os.environ["SLURM_JOB_ID"],
        "threads": [os.environ[name] for name in BLAS_THREADS],
        "settings": {name: dask.config.get(name) for name in OF_DASK},
        "memory": dask_worker.memory_manager.memory_limit,
        "retires_in": float(os.environ[RETIRES_AT]) - time.time(),
        "listening": set(listening),
    }


def wait_until_there_are(client: Client, workers: int) -> None:
    deadline = time.monotonic() + 60
    while len(client.nthreads()) != workers:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_four_workers_of_a_job_share_two_gpus_and_come_back(
    slurm: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    info_log: pytest.LogCaptureFixture,
) -> None:
    for name in {*os.environ, *slurm}:
        if name in slurm and name not in BLAS_THREADS:
            monkeypatch.setenv(name, slurm[name])
        else:
            monkeypatch.delenv(name)
    profile = tmp_path / "profile.toml"
    profile.write_text(PROFILE.format(flag=tmp_path / "flag"))
    with slurm_cluster(ComputeSettings(cluster="slurm", profile=profile), tmp_path) as client:
        wait_until_there_are(client, 4)
        assert "1 Slurm job of 4 workers submitted" in info_log.text
        # The node of the tests' Slurm has this address.
        assert "the workers reach this driver at 127.0.0.1" in info_log.text
        assert "ended before a worker connected (see" in info_log.text  # the first one did
        workers = list(client.run(seen_by).values())
        assert sorted(worker["gpu"] for worker in workers) == ["0", "0", "1", "1"]
        for worker in workers:
            assert worker["threads"] == ["2", "2", "2"]
            assert worker["settings"] == {name: SCHEDULING[name] for name in OF_DASK}
            assert worker["memory"] == 2_000_000_000
            assert 2900 < worker["retires_in"] < 3000
            assert worker["listening"] == {"127.0.0.1"}

        (job,) = {worker["job"] for worker in workers}
        subprocess.run(["scancel", job], check=True)
        wait_until_there_are(client, 0)
        wait_until_there_are(client, 4)
        (replacement,) = {worker["job"] for worker in client.run(seen_by).values()}
        assert replacement != job

        subprocess.run(["scontrol", "requeue", replacement], check=True)
        wait_until_there_are(client, 0)
        let_begin_now(replacement)
        wait_until_there_are(client, 4)
        again = list(client.run(seen_by).values())
        assert {worker["job"] for worker in again} == {replacement}
        assert sorted(worker["gpu"] for worker in again) == ["0", "0", "1", "1"]
    assert info_log.text.count("submitting another one") == 2


def let_begin_now(job: str) -> None:
    """Start a requeued job at once; Slurm would delay it by two minutes."""
    deadline = time.monotonic() + 30
    while (
        subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True).stdout.strip()
        != b"PENDING"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)


def test_a_worker_that_retires_finishes_its_task_and_hands_on_the_others(tmp_path: Path) -> None:
    port = free_port()
    scheduler, *_ = started = start_dask(port, 0, tmp_path, tmp_path)
    here = [
        "--host",
        "127.0.0.1",
        "--no-dashboard",
        "--dashboard-address",
        "127.0.0.1:0",
        "--nthreads",
        "1",
    ]
    preload = ["--preload", "dsmi_zoo.jobs.clusters.slurm.preload"]
    command = [sys.executable, "-m", "dask", "worker", f"tcp://127.0.0.1:{port}", *here, *preload]
    settings = {"DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False"}

    def slept(note: Path, seconds: float) -> str:
        with note.open("a") as file:
            file.write("begun\n")
        time.sleep(seconds)
        return str(get_worker().name)

    def start_worker(name: str, more: dict[str, str]) -> "subprocess.Popen[bytes]":
        log = (tmp_path / name).open("wb")
        with log:
            worker = subprocess.Popen(
                [*command, "--name", name], env=os.environ | settings | more, stdout=log, stderr=log
            )
        started.append(worker)
        return worker

    try:
        with Client(f"tcp://127.0.0.1:{port}", timeout="30s") as client:
            retiring = start_worker("retiring", {RETIRES_AT: str(time.time() + 6)})
            wait_until_there_are(client, 1)
            begun = time.time()
            running = client.submit(slept, tmp_path / "running", 8)
            start_worker("other", {})
            wait_until_there_are(client, 2)
            waiting = [client.submit(slept, tmp_path / f"waiting-{n}", 1, workers="retiring", allow_other_workers=True)
                       for n in range(2)]  # fmt: skip
            assert running.result(timeout=60) == "retiring"
            assert {future.result(timeout=60) for future in waiting} == {"other"}
            assert retiring.wait(timeout=30) == 0
            assert time.time() - begun < 20
        assert (tmp_path / "running").read_text() == "begun\n"
        assert scheduler.poll() is None
    finally:
        stop(started)


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("1:30:05", 5405),
        ("1-12", 129600),
        ("1-1:30", 91800),
        ("2-0:00:07", 172807),
    ],
)
def test_a_walltime_is_read_as_slurm_writes_it(walltime: str, seconds: int) -> None:
    assert walltime_seconds(walltime) == seconds


def test_workers_retire_before_the_end_but_not_in_jobs_too_short_or_without_end() -> None:
    assert [retires_after(walltime) for walltime in ("4:00:00", "30", "9:59", "0")] == [
        13800,
        1500,
        None,
        None,
    ]


def test_a_job_has_a_process_for_each_core_of_a_gpu_up_to_four_unless_told(tmp_path: Path) -> None:
    def processes(asked: int | None = None, **fields: Any) -> int:
        return Profile(**fields).processes(asked)

    assert processes() == 4
    assert processes(gpus=8, cpus=64) == 32
    assert processes(gpus=8, cpus=20) == 16
    assert processes(gpus=8, cpus=4) == 8
    assert processes(gpus=8, cpus=64, per_gpu=6) == 48
    assert processes(2, gpus=8, cpus=64, per_gpu=6) == 16
    assert processes(2, gpus=0, cpus=64, per_gpu=6) == 1
    profile = tmp_path / "profile.toml"
    for gres in ("gpu:a100:4", "gpu:4"):
        profile.write_text(f'gres = "{gres}"\n')
        with pytest.raises(InputError, match=f"gres = '{gres}' asks for 4 GPUs, and gpus says 1"):
            load_profile(profile)
        profile.write_text(f'gres = "{gres}"\ngpus = 4\n')
        load_profile(profile)
    for gres in ("gpu", "gpu:a100", "gpu:1g.5gb", "gpu:a100:1", "shard:3"):
        profile.write_text(f'gres = "{gres}"\n')
        load_profile(profile)


def test_a_loopback_address_is_the_drivers_only_where_all_nodes_are_this_machine() -> None:
    unknown = "no-such-node.invalid"
    # Reserved for documentation; the route to it starts at this machine's own address.
    outward = "192.0.2.1"
    assert address_towards(["127.0.0.1", "127.0.1.1"]) == "127.0.0.1"
    for nodes in ([], [unknown], ["127.0.1.1", unknown]):
        with pytest.raises(
            InputError, match=r'name the interface that they share in a --profile \(interface = "'
        ):
            address_towards(nodes)
    own = [address.address for addresses in psutil.net_if_addrs().values() for address in addresses]
    if not any(address.count(".") == 3 and not address.startswith("127.") for address in own):
        pytest.skip("this machine has no network")
    assert address_towards(["127.0.0.1", unknown, outward]) in own
