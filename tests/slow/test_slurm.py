"""Runs on a real Slurm: submitted, cancelled, refused, timed out, as an array; and access to the scheduler."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import IMAGES_PER_CLASS, SMALL_ZOO

from dsmi_zoo.pipeline.store.run_folder import read_results

PROFILE = """
gpus = 1
cpus = 1
memory = "1500MB"
workers = 2
interface = "lo"
walltime = "{walltime}"
driver = {{ memory = "1GB", walltime = "00:30:00" }}
"""
OWN = """
import os, time
from pathlib import Path

def own_gpu(Z, labels):
    first = Path({first!r})
    if {trapped} and len(list(Path({out!r}, "results").glob("*.parquet"))) >= 2:
        try:
            with first.open("x") as file:
                file.write(os.environ["SLURM_JOB_ID"] + " " + os.environ["CUDA_VISIBLE_DEVICES"])
            time.sleep(600)
        except FileExistsError:
            pass
    return float(os.environ["CUDA_VISIBLE_DEVICES"])
"""
MEASURED = ["embedding_sha256", "dse_z", "dsmi_z_y", "dsmi_z_x", "top1"]


class Site:
    """A user of the tests' Slurm, with a private folder."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment, self.folder, self.out = environment, folder, folder / "out"

    def profile(self, walltime: str = "00:30:00") -> Path:
        path = self.folder / "profile.toml"
        path.write_text(PROFILE.format(walltime=walltime))
        return path

    def own_measure(self, *, trapped: bool) -> Path:
        """Write a measure that returns its GPU; if trapped, one model hangs once and writes job and GPU to the path."""
        first = self.folder / "first"
        (self.folder / "own.py").write_text(
            OWN.format(first=str(first), out=str(self.out), trapped=trapped)
        )
        return first

    def __call__(self, *command: object, code: int = 0) -> str:
        arguments = [str(part) for part in command]
        if arguments[0] == "dsmi-zoo":
            arguments[0] = str(Path(sys.executable).with_name("dsmi-zoo"))
        done = subprocess.run(
            arguments,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr if code == 2 else done.stdout

    def queue(self) -> list[str]:
        return self("squeue", "-h", "-o", "%i").split()

    def wait(self, condition: Callable[[], object], seconds: float = 150) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self("squeue") + "\n".join(
                f"{path.name}: {path.read_text()[-2000:]}"
                for path in (self.out / "logs").glob("*.out")
            )
            time.sleep(0.2)

    def listening(self, job: str) -> set[str]:
        """Return the addresses on which the processes of a job listen."""
        addresses = set()
        of_the_job = {("SLURM_CONF", self.environment["SLURM_CONF"]), ("SLURM_JOB_ID", job)}
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                connections = process.net_connections("inet")
            except psutil.Error:  # it has just ended, or belongs to the kernel
                continue
            if of_the_job <= environment.items():
                addresses |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
        return addresses

    def assert_same_numbers(self, small_run: Path) -> pd.DataFrame:
        rows, expected = (read_results(out).set_index("model") for out in (self.out, small_run))
        assert (rows["status"] == "ok").all(), rows["error_message"].to_dict()
        pd.testing.assert_frame_equal(rows[MEASURED], expected[MEASURED])
        return rows


@pytest.fixture
def site(slurm: dict[str, str], cache: Path, tmp_path: Path) -> Site:
    return Site(slurm | {"DSMI_ZOO_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}, tmp_path)


RUN = (
    "--models",
    *SMALL_ZOO,
    "--images-per-class",
    str(IMAGES_PER_CLASS),
    "--measure",
    "own:own_gpu",
)


def submitted_until_one_hangs(site: Site) -> tuple[Path, str, int]:
    """Submit, wait until a model hangs, and return (file with its job and GPU, driver's job, driver's process)."""
    first = site.own_measure(trapped=True)
    said = site("dsmi-zoo", "submit", "slurm", "--profile", site.profile(), *RUN, "--out", site.out)
    driver = re.search(r"^job (\d+): driver$", said, re.M)[1]  # type: ignore[index]
    assert said.rstrip().endswith(f"scancel {driver}")
    site.wait(lambda: first.exists() and first.read_text())
    process = re.search(
        r"being computed by process (\d+)", site("dsmi-zoo", "status", "--out", site.out)
    )
    assert process is not None
    return first, driver, int(process[1])


def test_a_submitted_run_survives_a_cancelled_worker_and_shares_out_gpus(
    site: Site, small_run: Path
) -> None:
    first, driver, _ = submitted_until_one_hangs(site)
    log = site.out / "logs" / f"driver-{driver}.out"
    address = re.search(r" at (tls://127\.0\.0\.1:\d+);", log.read_text())[1]  # type: ignore[index]
    for stranger in (address, address.replace("tls", "tcp")):
        code = f"from distributed import Client; Client({stranger!r}, timeout='3s')"
        assert subprocess.run(
            [sys.executable, "-c", code], capture_output=True, timeout=60
        ).returncode
    credentials = next(site.out.glob(".credentials-*"))
    assert {oct(path.stat().st_mode & 0o77) for path in (credentials, *credentials.iterdir())} == {
        "0o0"
    }
    # The other worker measures some of these.
    site.wait(lambda: len(list((site.out / "results").glob("*.parquet"))) == 5)
    finished = {path: path.stat().st_mtime_ns for path in (site.out / "results").glob("*.parquet")}
    hanging_job, hanging_gpu = first.read_text().split()
    assert site.listening(hanging_job) == {"127.0.0.1"}
    site("scancel", hanging_job)
    site.wait(lambda: not site.queue())
    rows = site.assert_same_numbers(small_run)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert {float(hanging_gpu), *rows["own_gpu"]} == {0.0, 1.0}
    assert (site.out / "report" / "index.html").exists()
    assert not list(site.out.glob(".credentials-*"))
    assert "6 models: 6 ok, 0 failed" in log.read_text()


def test_a_driver_whose_walltime_ends_stops_its_workers_and_has_another_turn(
    site: Site, small_run: Path
) -> None:
    _, driver, process = submitted_until_one_hangs(site)
    finished = {path: path.stat().st_mtime_ns for path in (site.out / "results").glob("*.parquet")}
    # Slurm, too, warns only the batch shell.
    os.kill(psutil.Process(process).ppid(), signal.SIGUSR1)
    site.wait(lambda: site.queue() == [driver] and "PENDING" in site("squeue", "-h", "-o", "%T"))
    # Slurm would delay a requeued job by 2 minutes.
    site("scontrol", "update", f"JobId={driver}", "StartTime=now")
    site.wait(lambda: not site.queue())
    site.assert_same_numbers(small_run)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_a_worker_whose_walltime_ends_in_mid_model_is_replaced(site: Site, small_run: Path) -> None:
    first = site.own_measure(trapped=True)
    run = (
        "dsmi-zoo",
        "run",
        "--cluster",
        "slurm",
        "--profile",
        site.profile("1"),
        "--workers",
        1,
        *RUN,
    )
    with ThreadPoolExecutor(1) as beside:
        out_of_time = beside.submit(site, *run, "--out", site.out)
        found = site("dsmi-zoo", "doctor", "--cluster", "slurm", code=1)  # no real GPUs
        assert re.search(r"ok +route +127\.0\.0\.1 to 127\.0\.0\.1 on \S+ and back", found)
        small = (
            "dsmi-zoo",
            "run",
            "--cluster",
            "slurm",
            "--workers",
            1,
            "--per-gpu",
            1,
            "--models",
            "test_vit.100*",
        )
        said = site(*small, "--out", site.folder / "without", "--no-report")
        assert "1 Slurm job of 1 worker submitted" in said
        assert "1 model: 1 ok, 0 failed" in said
        out_of_time.result()
    assert first.exists()
    site.assert_same_numbers(small_run)
    assert "DUE TO TIME LIMIT" in "".join(
        path.read_text() for path in (site.out / "logs").glob("*.err")
    )


def test_an_array_computes_every_model_once_also_when_a_share_is_requeued(
    site: Site, small_run: Path
) -> None:
    site.own_measure(trapped=False)
    submit = ("dsmi-zoo", "submit", "slurm", "--profile", site.profile(), "--array")
    assert "at most 8 tasks of an array (MaxArraySize)" in site(
        *submit, 9, *RUN, "--out", site.out, code=2
    )
    said = site(*submit, 2, *RUN, "--out", site.out)
    jobs = re.findall(r"^job (\d+): ", said, re.M)
    assert len(jobs) == 2
    assert said.rstrip().endswith(f"scancel {' '.join(jobs)}")
    site.wait(lambda: list((site.out / "results").glob("*.parquet")))
    share = f"{jobs[0]}_2"
    site("scontrol", "requeue", share)
    site.wait(lambda: "PENDING" in site("squeue", "-h", "-j", share, "-o", "%T"))
    finished = {path: path.stat().st_mtime_ns for path in (site.out / "results").glob("*.parquet")}
    site("scontrol", "update", f"JobId={share}", "StartTime=now")  # see above
    site.wait(lambda: not site.queue())
    site.assert_same_numbers(small_run)
    ended = [log.read_text() for log in sorted((site.out / "logs").glob("share-*.out"))]
    assert [
        len(re.findall(r"share ./2: \d models? computed, 0 failed", text)) >= 1 for text in ended
    ] == [True, True]
    assert {
        path for path, time_ns in finished.items() if path.stat().st_mtime_ns != time_ns
    } == set()
    assert (site.out / "report" / "index.html").exists()


def test_what_slurm_refuses_reaches_the_user_in_its_own_words(site: Site) -> None:
    profile = site.profile()
    profile.write_text(profile.read_text().replace("gpus = 1", "gpus = 5"))
    said = site(
        "dsmi-zoo", "run", "--cluster", "slurm", "--profile", profile, "--out", site.out, code=2
    )
    assert (
        "Requested node configuration is not available; set this site's partition, account and limits in a --profile"
        in said
    )
    assert said.count("\n") == 1
    assert not site.queue()
    said = site(
        "dsmi-zoo", "submit", "slurm", "--array", 2, "--profile", profile, "--out", site.out, code=2
    )
    assert "Requested node configuration is not available" in said


def test_scripts_are_printed_and_nothing_is_submitted_by_a_dry_run(site: Site) -> None:
    submit = (
        "dsmi-zoo",
        "submit",
        "slurm",
        "--profile",
        site.profile(),
        "--dry-run",
        "--out",
        site.out,
    )
    said = site(*submit, "--models", "test_vit's*", "--sigma", 2)
    assert "#SBATCH --job-name=dsmi-zoo-driver" in said
    assert """run --out""" in said
    assert """'test_vit'"'"'s*' --sigma 2 --cluster slurm --profile""" in said
    said = site(*submit, "--array", 3)
    assert "#SBATCH --array=1-3" in said
    assert "#SBATCH --gres=gpu:1" in said
    assert not site.queue()
    assert not site.out.exists()


def test_options_that_a_submitted_run_cannot_have_are_refused(site: Site) -> None:
    submit = ("dsmi-zoo", "submit", "slurm", "--out", site.out)
    assert "--sigmas" in site(*submit, "--sigmas", 2, code=2)
    assert "--cluster means nothing to submit" in site(*submit, "--cluster", "local", code=2)
    profile = site.folder / "profile.toml"
    profile.write_text('interface = "nowhere0"\n')
    for command in (
        ("submit", "slurm"),
        ("run", "--cluster", "slurm"),
        ("doctor", "--cluster", "slurm"),
    ):
        said = site("dsmi-zoo", *command, "--profile", profile, "--out", site.out, code=2)
        assert re.search(
            r"--profile: this machine has no network interface 'nowhere0', but .*\blo\b", said
        )
        assert said.count("\n") == 1


def test_without_slurm_it_is_said_in_one_line(tmp_path: Path, cache: Path) -> None:
    profile = tmp_path / "profile.toml"
    profile.write_text('interface = "lo"\n')
    environment = os.environ | {"DSMI_ZOO_CACHE": str(cache), "PATH": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "dsmi_zoo.jobs.cli.main",
        "run",
        "--cluster",
        "slurm",
        "--profile",
        profile,
        "--out",
        "out",
    ]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "dsmi-zoo: this machine has no sbatch; use a login node of the cluster\n",
    )
