"""A real one-node Slurm for the tests, on the loopback address, with 8 declared CPUs and two null devices as GPUs."""

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SchedulerParameters=sched_min_interval=200000,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
MaxArraySize=9
ReturnToService=2
KillWait=2
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""


@contextmanager
def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start a Slurm in ``folder`` and yield the environment to use it; skip the test where Slurm is not installed."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(
            f"no Slurm: {', '.join(missing)} not found (Debian: slurmctld slurmd slurm-client munge)"
        )
    if os.geteuid() != 0:
        pytest.skip("a Slurm of one's own needs root")
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True)
    (folder / "munge" / "key").write_bytes(os.urandom(128))
    (folder / "munge" / "key").chmod(0o600)
    for gpu in ("gpu0", "gpu1"):
        try:
            os.mknod(folder / gpu, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("no right to make device files, which stand in for GPUs")
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, ports=_free_ports()))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "SBATCH_"))
    }
    environment["SLURM_CONF"] = str(conf)
    munge = [f"--{name}={folder}/munge/{file}" for name, file in _MUNGE.items()]
    try:
        # Without --force, munged refuses a folder that other users cannot read, such as a test's.
        for command in (
            ["munged", "--force", *munge],
            ["slurmctld", "-c", "-f", str(conf)],
            ["slurmd", "-f", str(conf)],
        ):
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=30)
        _wait_until_idle(environment, folder)
        yield environment
    finally:
        _stop(environment, folder)


_MUNGE = {
    "socket": "socket",
    "key-file": "key",
    "pid-file": "munged.pid",
    "log-file": "log",
    "seed-file": "seed",
}


def _free_ports() -> list[int]:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return [first.getsockname()[1], second.getsockname()[1]]


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    for _ in range(300):
        state = subprocess.run(
            ["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True
        ).stdout
        if state.strip() == "idle":
            return
        time.sleep(0.1)
    raise TimeoutError("\n".join(path.read_text() for path in folder.glob("*.log")))


def _stop(environment: dict[str, str], folder: Path) -> None:
    if shutil.which("scancel"):
        subprocess.run(["scancel", "--user", "root"], env=environment, capture_output=True)
        for _ in range(100):
            if not subprocess.run(
                ["squeue", "-h"], env=environment, capture_output=True
            ).stdout.strip():
                break
            time.sleep(0.1)
    for pid_file in ("slurmd.pid", "slurmctld.pid", "munge/munged.pid"):
        try:
            pid = int((folder / pid_file).read_text())
            os.kill(pid, 15)
        except (OSError, ValueError):
            continue
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.1)
