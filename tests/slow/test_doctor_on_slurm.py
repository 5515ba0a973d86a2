"""`dsmi-zoo doctor --cluster slurm` on a real Slurm of one node."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsmi_zoo.jobs.clusters.profile import load_profile
from dsmi_zoo.jobs.doctor import slurm as slurm_check
from dsmi_zoo.jobs.doctor.report import Folders
from dsmi_zoo.jobs.doctor.slurm import check_by_job

PROFILE = (
    'gpus = {gpus}\ncpus = 1\nmemory = "{memory}"\ninterface = "lo"\nprologue = [{prologue}]\n'
)


@pytest.fixture(autouse=True)
def _on_slurm(slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(slurm):
        monkeypatch.delenv(name)
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def profile(folder: Path, gpus: int = 1, memory: str = "1GB", prologue: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(PROFILE.format(gpus=gpus, memory=memory, prologue=prologue))
    return path


def queue() -> str:
    return subprocess.run(
        ["squeue", "--noheader"], capture_output=True, text=True, check=True
    ).stdout.strip()


def ask(tmp_path: Path, path: Path, wait_s: float = 60) -> str:
    """Return the one finding of a check whose job sends no report."""
    folders = Folders(tmp_path / "cache", tmp_path / "out")
    report = check_by_job(load_profile(path), folders, wait_s)
    assert report.problems == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()
    (finding,) = report.findings
    return f"{finding.what} {finding.found} -> {finding.do}"


def test_a_job_looks_at_the_node_the_folders_and_the_way_back(tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    (data / "image.png").write_bytes(b"png")
    command = [
        str(Path(sys.executable).with_name("dsmi-zoo")), "doctor", "--cluster", "slurm", "--json",
        "--profile", str(profile(tmp_path)), "--out", str(out), "--data-root", str(data), "--cache", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    here, node = json.loads(done.stdout)["machines"]
    assert node["job"]
    assert node["versions"] == here["versions"]
    found = {finding["what"]: finding for finding in node["findings"]}
    for what in (
        "OUT shared",
        "cache shared",
        "exclusive create",
        "route by lo",
        "versions",
        "data",
        "torch",
    ):
        assert found[what]["level"] == "ok", found[what]
    assert found["GPUs of the job"]["found"] == "CUDA_VISIBLE_DEVICES=0"
    assert "127.0.0.1 to 127.0.0.1" in found["route by lo"]["found"]
    assert "GPUs" in found or "GPU 0" in found  # torch cannot use the stand-in
    assert done.returncode == 1, done.stderr
    assert "RUNNING" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "mine.toml"]
    assert queue() == ""


def test_a_request_that_slurm_rejects_is_told_in_its_own_words(tmp_path: Path) -> None:
    found = ask(tmp_path, profile(tmp_path, gpus=5))
    assert (
        "Slurm refuses: Batch job submission failed: Requested node configuration is not available"
        in found
    )


def test_the_log_of_a_job_that_ends_without_a_report_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info_log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slurm_check, "REPORT_AFTER_END_S", 0.5)
    found = ask(tmp_path, profile(tmp_path, prologue='"echo no module python >&2", "exit 3"'))
    assert "FAILED without a report" in found
    assert "no module python" in found
    assert "prologue" in found
    assert "FAILED" in info_log.text


def test_a_job_that_waits_too_long_is_cancelled_and_its_reason_told(
    tmp_path: Path, info_log: pytest.LogCaptureFixture
) -> None:
    blocker = ["sbatch", "--parsable", "--mem=63000", "--output=/dev/null", "--wrap", "sleep 100"]
    job = subprocess.run(blocker, capture_output=True, text=True, check=True).stdout.strip()
    try:
        path = profile(tmp_path, memory="7GB")
        found = ask(tmp_path, path, wait_s=3)
        assert "still PENDING after 3 s (Resources); cancelled" in found
        assert "--wait" in found
        assert "PENDING (Resources)" in info_log.text
        assert len(queue().splitlines()) == 1

        code = (
            "import logging, sys; logging.basicConfig(level='INFO', stream=sys.stdout); "
            "from dsmi_zoo.jobs.doctor.slurm import *; from dsmi_zoo.jobs.clusters.profile import load_profile; "
            f"cache = Path({str(tmp_path / 'cache')!r}); profile = load_profile(Path({str(path)!r})); "
            "check_by_job(profile, Folders(cache), 60)"
        )
        waiting = subprocess.Popen(
            [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert waiting.stdout is not None
        while b"PENDING" not in waiting.stdout.readline():
            assert waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        _, errors = waiting.communicate(timeout=30)
        assert b"KeyboardInterrupt" in errors
        assert len(queue().splitlines()) == 1
        assert not (tmp_path / "cache").exists()
    finally:
        subprocess.run(["scancel", job], check=True)
    while queue():
        time.sleep(0.1)
