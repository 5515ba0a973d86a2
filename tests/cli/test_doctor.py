"""Findings of `dsmi-zoo doctor` on real folders and processes, and on fake GPUs and drivers."""

import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Command
from hub_server import HubServer
from huggingface_hub import constants

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.locks import acquired
from dsmi_zoo.jobs.doctor import gpus, machine
from dsmi_zoo.jobs.doctor import slurm as node
from dsmi_zoo.jobs.doctor.command import doctor
from dsmi_zoo.jobs.doctor.gpus import NvidiaDriver
from dsmi_zoo.jobs.doctor.report import Finding, Folders
from dsmi_zoo.jobs.doctor.slurm import Request, listening_port, try_route
from dsmi_zoo.jobs.progress import SILENT

DRIVER = NvidiaDriver(version="535.1", cuda="12.2", gpus=("H100", "H100"))
TORCH: dict[str, Any] = {
    "version": "2.9.0", "cuda": "12.6", "hip": None, "unimportable": {}, "reason": "", "devices": []
}  # fmt: skip
GOOD = {"name": "H100", "memory": 80e9, "error": ""}
BAD = GOOD | {"error": "no kernel image"}
TORCH_VERSION = machine.version_of("torch")


def worst(findings: list[Finding]) -> tuple[str, str]:
    """Return the level and the text of the worst finding."""
    order = ["ok", "note", "problem"]
    found = max(findings, key=lambda finding: order.index(finding.level))
    return found.level, f"{found.what}: {found.found} -> {found.do}"


def test_it_looks_at_everything_a_run_needs_and_leaves_nothing_behind(
    tmp_path: Path, cli: Command
) -> None:
    out, data = tmp_path / "runs" / "new", tmp_path / "data"
    data.mkdir()
    (data / "image.png").write_bytes(b"png")
    done = cli(
        "doctor",
        "--json",
        "--out",
        out,
        "--data-root",
        data,
        "--cache",
        tmp_path / "cache",
        code=None,
    )
    answer = json.loads(done.stdout)
    (machine,) = answer["machines"]
    whats = {finding["what"] for finding in machine["findings"]}
    assert whats >= {
        "Python",
        "libraries",
        "Slurm",
        "cores",
        "memory",
        "torch",
        "cache",
        "OUT",
        "data",
        "hub",
    }
    assert {"GPUs", "GPU 0"} & whats
    assert answer["problems"] == sum(
        finding["level"] == "problem" for finding in machine["findings"]
    )
    assert done.returncode == bool(answer["problems"])
    assert machine["versions"]["torch"] == TORCH_VERSION
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_people_read_lines_and_a_problem_makes_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "ask_torch", lambda: TORCH | {"cuda": None})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("COLUMNS", "60")
    looked_at = Folders(Path("/proc/cache"), data_root=tmp_path / "empty")
    assert doctor("local", None, looked_at, 1, False, SILENT) == 1
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert any(line.split()[:3] == ["problem", "cache", "/proc/cache:"] for line in lines)
    assert "            -> make it writable, make room, or choose another --cache" in lines
    assert f"{tmp_path / 'empty'}: holds no file" in said
    assert "problems" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--cluster cloud", ["--cluster", "'slurm'"]),
        ("--wait soon", ["--wait: must be a time such as 90s", "'soon'"]),
        (
            "--cluster slurm --profile mine.toml",
            ["--profile: this machine has no network interface 'nowhere0', but"],
        ),
        ("--node gone.json", ["gone.json"]),
    ],
)
def test_usage_errors_come_before_any_check_in_one_line(
    tmp_path: Path, cli: Command, arguments: str, words: list[str]
) -> None:
    (tmp_path / "mine.toml").write_text('interface = "nowhere0"\n')
    done = cli("doctor", *arguments.split(), cwd=tmp_path, code=2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_a_profile_that_nothing_reads_or_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("cpus = 0\n")
    for cluster, name, words in (
        ("local", "wrong.toml", "--profile means nothing without --cluster slurm"),
        ("slurm", "gone.toml", "no such profile"),
        ("slurm", "wrong.toml", "cpus"),
    ):
        with pytest.raises(InputError, match=words):
            doctor(cluster, tmp_path / name, Folders(tmp_path), 1, False, SILENT)


@pytest.mark.parametrize(
    ("driver", "torch", "visible", "wants", "level", "words"),
    [
        (None, {"cuda": None}, [], False, "note", "none -> models run on the CPU"),
        (None, {}, [], True, "problem", "none -> ask for a GPU"),
        (None, {}, ["0"], True, "problem", "no NVIDIA driver"),
        (DRIVER, {"devices": [GOOD, GOOD]}, ["a", "b"], True, "ok", ""),
        (DRIVER, {"devices": [GOOD, BAD]}, ["a", "b"], False, "problem", "GPU 1: H100: no kernel"),
        (DRIVER, {"cuda": None}, ["a", "b"], False, "problem", "install torch for CUDA 12.2 or older"),
        (DRIVER, {"cuda": "13.0", "reason": "too old"}, ["a"], False, "problem", "the driver runs 12.2"),
        (DRIVER, {"cuda": "12.6", "reason": "unknown error"}, ["a"], False, "problem", "them: unknown error"),
        (NvidiaDriver(error="no devices"), {}, [], False, "note", "nvidia-smi: no devices"),
        (None, {"unimportable": {"torchvision": "nms does not exist"}}, [], False, "problem", "torchvision: cannot be"),
        (None, {"error": "is ended by SIGABRT: free()"}, [], False, "problem", "torch is ended by SIGABRT"),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_used_is_told_with_the_reason(
    driver: NvidiaDriver | None, torch: dict[str, Any], visible: list[str], wants: bool, level: str, words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answer = torch if "error" in torch else TORCH | torch
    found = worst(gpus.gpu_findings(driver, answer, visible, wants_gpu=wants))
    assert found[0] == level
    assert words in found[1]


def test_gpus_that_are_hidden_on_purpose_are_no_problem_unless_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert worst(gpus.gpu_findings(DRIVER, TORCH, [], wants_gpu=False))[0] == "note"
    level, words = worst(gpus.gpu_findings(DRIVER, TORCH, [], wants_gpu=True))
    assert level == "problem"
    assert "hides all 2" in words


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_torch_that_ends_its_process_is_reported_not_suffered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys,
        "executable",
        str(program(tmp_path / "python", "echo 'CUDA is broken' >&2; kill -ABRT $$")),
    )
    assert gpus.ask_torch() == {
        "error": f"is ended by {signal.Signals.SIGABRT.name}: CUDA is broken"
    }
    monkeypatch.setattr(gpus, "TORCH_ANSWERS_WITHIN_S", 0.2)
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "slow", "exec sleep 20")))
    assert "does not answer" in gpus.ask_torch()["error"]


def test_the_drivers_versions_and_gpus_are_read_from_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "| NVIDIA-SMI 535.104.05   Driver Version: 535.104.05   CUDA Version: 12.2     |"
    program(
        tmp_path / "bin" / "nvidia-smi",
        f"if [ $# -gt 0 ]; then echo '535.104.05, NVIDIA H100'; echo '535.104.05, NVIDIA H100'; else echo '{head}'; fi",
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert gpus.nvidia_driver() == NvidiaDriver(
        "535.104.05", "12.2", ("NVIDIA H100", "NVIDIA H100")
    )
    program(tmp_path / "bin" / "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    assert gpus.nvidia_driver() == NvidiaDriver(error="NVIDIA-SMI has failed")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.nvidia_driver() is None


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({"free": 5 * 10**8}, "problem", "500.0 MB free -> make room"),
        ({"free": 5 * 10**9}, "note", "about 13 GB"),
        ({"kind": "tmpfs"}, "note", "it is in memory"),
        ({"seconds": 8.0}, "note", "writes 1 MB/s"),
        ({"locks": False}, "problem", "exclusive create succeeds on a file that exists"),
        ({}, "ok", ""),
    ],
)
def test_what_a_file_system_cannot_do_is_said(
    changed: dict[str, Any], level: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"free": 10**12, "kind": "lustre", "seconds": 0.1, "locks": True} | changed
    free = SimpleNamespace(free=folder["free"])
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    monkeypatch.setattr(machine, "file_system", lambda path: folder["kind"])
    monkeypatch.setattr(machine, "write_and_sync", lambda path: folder["seconds"])
    monkeypatch.setattr(machine, "refuses_second_creation", lambda path: folder["locks"])
    found = worst(machine.writable_findings("OUT", tmp_path))
    assert found[0] == level
    assert words in found[1]


def test_a_real_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    space, speed, locks = machine.writable_findings("OUT", tmp_path / "a" / "b")
    assert "a/b: does not exist yet, can be made" in space.found
    assert "writes" in speed.found
    assert (locks.level, locks.found) == ("ok", "works: exclusive create")
    assert not (tmp_path / "a").exists()
    assert "exists" in machine.writable_findings("OUT", tmp_path)[0].found
    assert not list(tmp_path.iterdir())
    assert machine.file_system(tmp_path)
    (tmp_path / "file").touch()
    assert worst(machine.writable_findings("OUT", tmp_path / "file"))[0] == "problem"


def test_a_library_that_is_missing_or_too_old_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert worst(machine.library_findings())[0] == "ok"
    required = ["numpy>=1000", "no-such-library>=2", "click>=8", "ruff>=1000; extra == 'test'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: required)
    level, words = worst(machine.library_findings())
    assert level == "problem"
    assert "pip install 'numpy>=1000' 'no-such-library>=2'" in words
    assert "click" not in words
    assert "ruff" not in words


def test_the_hub_is_asked_unless_downloads_are_forbidden(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    assert machine.hub_finding().level == "ok"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    unreachable = machine.hub_finding()
    assert unreachable.level == "note"
    assert "http://127.0.0.1:9 does not answer" in unreachable.found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert machine.hub_finding().level == "ok"


def test_a_route_is_tried_both_ways_and_only_for_those_who_know_the_token() -> None:
    with listening_port("127.0.0.1", "secret") as port:
        assert try_route("127.0.0.1", ("127.0.0.1", port), "secret") == ("", "")
        assert try_route("127.0.0.1", ("127.0.0.1", port), "guess") == (
            "another program answers there",
            "",
        )
    there, _ = try_route("127.0.0.1", ("127.0.0.1", port), "secret")
    assert "refused" in there.lower()


def asked(tmp_path: Path, **changed: Any) -> Request:
    given = {
        "host": "login",
        "token": "t",
        "marks": {"OUT": tmp_path / "mark"},
        "interface": "lo",
        "gpus": 0,
    }
    return Request(**({**given, "address": ("127.0.0.1", 9), "versions": {}} | changed))


def test_a_folder_that_the_node_does_not_share_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "VISIBLE_WITHIN_S", 0.3)
    request = asked(tmp_path)
    lock = tmp_path / "lock"
    findings = list(node.shared_findings(request, lock))
    assert [finding.level for finding in findings] == ["problem", "problem"]
    assert "does not see what login wrote" in findings[0].found
    assert "choose an --out on a file system that this node and login share" in findings[0].do
    assert "does not respect a file that login made" in findings[1].found
    request.marks["OUT"].write_text("t")
    lock.unlink()  # made by the failed check
    with acquired(lock):
        assert [finding.level for finding in node.shared_findings(request, lock)] == ["ok", "ok"]


def test_a_node_without_the_interface_or_a_way_to_the_scheduler_is_told_so(tmp_path: Path) -> None:
    finding = node.route_finding(asked(tmp_path, interface="ib7"))
    assert finding.level == "problem"
    assert "no interface ib7" in finding.found
    assert "lo" in finding.do
    finding = node.route_finding(asked(tmp_path))
    assert finding.level == "problem"
    assert "no way from 127.0.0.1 to 127.0.0.1" in finding.found
    assert "submit slurm" in finding.do


@pytest.mark.parametrize(
    ("there", "level"),
    [
        ({"python": "3.11.2", "dask": "2026.8.0", "timm": "1.0.31"}, "ok"),
        ({"python": "3.11.9", "dask": "2026.8.0", "timm": "1.0.31"}, "note"),
        ({"python": "3.12.2", "dask": "2026.8.0", "timm": "1.0.31"}, "problem"),
        ({"python": "3.11.2", "dask": "2025.1.0", "timm": "1.0.31"}, "problem"),
        ({"python": "3.11.2", "dask": "2026.8.0", "timm": "1.0.26"}, "note"),
        ({"python": "3.11.2", "dask": "2026.8.0"}, "note"),
    ],
)
def test_versions_that_must_agree_are_a_problem_and_others_a_note(
    there: dict[str, str], level: str
) -> None:
    here = {"python": "3.11.2", "dask": "2026.8.0", "timm": "1.0.31"}
    assert worst(machine.version_findings(there, here, "login"))[0] == level


@pytest.mark.parametrize(
    ("chosen", "level"), [("0", "ok"), ("0,1", "problem"), ("", "problem"), (None, "problem")]
)
def test_a_job_that_sees_other_gpus_than_it_asked_for_is_a_problem(
    chosen: str | None, level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert [finding.level for finding in node.assigned_gpu_findings(1)] == [level]
    assert not list(node.assigned_gpu_findings(0))


def test_what_a_job_logged_stands_below_its_finding() -> None:
    finding = Finding(level="problem", what="job 3", found="FAILED:\nline 1\nline 2", do="mend it")
    assert [line.plain for line in finding.lines(5)] == [
        "  problem job 3  FAILED:", "            line 1", "            line 2", "            -> mend it"
    ]  # fmt: skip
