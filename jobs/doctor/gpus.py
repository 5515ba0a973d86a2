"""torch's build against NVIDIA's driver, and whether each GPU can be used."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dsmi_zoo._util.text import size_in_words

from .report import Finding

TORCH_ANSWERS_WITHIN_S = (
    60.0  # from a cold parallel file system; the whole job on a node has two minutes
)


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its version, the newest CUDA that it runs, and its GPUs; ``error`` when it does not answer."""

    version: str = ""
    cuda: str = ""
    gpus: tuple[str, ...] = ()
    error: str = ""


def nvidia_driver() -> Driver | None:
    """What nvidia-smi says; None where there is no such command."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30)
        head = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return Driver(error=" ".join(str(error).split()))
    if listed.returncode:
        return Driver(
            error=" ".join((listed.stdout or listed.stderr).split())[:200] or "nvidia-smi fails"
        )
    lines = [line.partition(", ") for line in listed.stdout.splitlines() if ", " in line]
    cuda = re.search(r"CUDA[\w ]* Version\s*:\s*(\d+\.\d+)", head.stdout)
    return Driver(
        lines[0][0] if lines else "", cuda[1] if cuda else "", tuple(name for _, _, name in lines)
    )


def ask_torch() -> dict[str, Any]:
    """The answer of `torch_probe`, or ``{"error": ...}``; the process at hand never imports torch."""
    command = [sys.executable, "-P", "-m", "dsmi_zoo.jobs.doctor.torch_probe"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=TORCH_ANSWERS_WITHIN_S
        )
    except subprocess.TimeoutExpired:
        return {"error": f"does not answer within {TORCH_ANSWERS_WITHIN_S:.0f} s"}
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["without a word"])[-1]
        how = (
            f"is ended by {signal.Signals(-asked.returncode).name}"
            if asked.returncode < 0
            else "cannot be imported"
        )
        return {"error": f"{how}: {last}"}
    return dict(json.loads(asked.stdout.splitlines()[-1]))


def gpu_findings(
    driver: Driver | None, torch: Mapping[str, Any], visible: Sequence[str], *, wants_gpu: bool
) -> list[Finding]:
    """torch's build against the driver, and whether each GPU that a process may use can be used."""
    if "error" in torch:
        found = f"torch {torch['error']}"
        do = (
            "is memory short? ask for more"
            if "SIGKILL" in found
            else "install torch anew, for this machine's driver"
        )
        return [Finding(level="problem", what="torch", found=found, do=do)]
    build = (
        f"CUDA {torch['cuda']}"
        if torch["cuda"]
        else f"ROCm {torch['hip']}"
        if torch["hip"]
        else "CPU"
    )
    findings = [Finding(level="ok", what="torch", found=f"{torch['version']}, {build} build")]
    for name, error in torch["unimportable"].items():
        do = f"install the {name} that belongs to torch {torch['version']}"
        findings.append(
            Finding(level="problem", what=name, found=f"cannot be imported: {error}", do=do)
        )
    if driver is not None and driver.version:
        runs = f", CUDA up to {driver.cuda}" if driver.cuda else ""
        findings.append(Finding(level="ok", what="GPU driver", found=f"{driver.version}{runs}"))
    if torch["devices"]:
        return [
            *findings,
            *(_device_finding(number, device) for number, device in enumerate(torch["devices"])),
        ]
    return [*findings, _no_gpu(driver, torch, visible, wants_gpu=wants_gpu)]


def _device_finding(number: int, device: Mapping[str, Any]) -> Finding:
    if device["error"]:
        do = "install a torch that supports this GPU, or leave it out by CUDA_VISIBLE_DEVICES"
        return Finding(
            level="problem",
            what=f"GPU {number}",
            found=f"{device['name']}: {device['error']}",
            do=do,
        )
    return Finding(
        level="ok",
        what=f"GPU {number}",
        found=f"{device['name']}, {size_in_words(device['memory'])}",
    )


def _no_gpu(
    driver: Driver | None, torch: Mapping[str, Any], visible: Sequence[str], *, wants_gpu: bool
) -> Finding:
    """Why torch sees no GPU, the likeliest reason first."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    level: Literal["note", "problem"] = "problem" if wants_gpu else "note"
    there = driver.gpus if driver is not None else ()
    if there and chosen is not None and not visible:
        found, do = (
            f"CUDA_VISIBLE_DEVICES={chosen!r} hides all {len(there)}",
            "unset it, or name the GPUs to use",
        )
    elif there and not torch["cuda"]:
        level, found = "problem", f"{len(there)} ({there[0]}), which this build of torch cannot use"
        do = f"install torch for CUDA {driver.cuda if driver else ''} or older, see Install in the README"
    elif there and driver is not None and _is_newer(torch["cuda"], driver.cuda):
        level = "problem"
        found = f"{len(there)} ({there[0]}); torch is built for CUDA {torch['cuda']}, the driver runs {driver.cuda}"
        do = f"install torch for CUDA {driver.cuda.partition('.')[0]}.x, or a newer driver; see Install in the README"
    elif there:
        level, found = (
            "problem",
            f"{len(there)} ({there[0]}), but torch cannot use them: {torch['reason']}",
        )
        do = "reinstall driver or torch so that they fit"
    elif driver is not None and driver.error:
        found, do = (
            f"nvidia-smi: {driver.error}",
            "models run on the CPU; if there is a GPU, its driver needs a repair",
        )
    elif visible:
        found = f"CUDA_VISIBLE_DEVICES={chosen}, but this machine has no NVIDIA driver"
        do = "ask those who run this machine, or take another partition; without a GPU, models run on the CPU"
    else:
        found, do = "none", "models run on the CPU"
        do = (
            "ask for a GPU (gpus, partition in the --profile), or use --cluster local"
            if wants_gpu
            else do
        )
    return Finding(level=level, what="GPUs", found=found, do=do)


def _is_newer(built_for: str, runs: str) -> bool:
    """Whether a CUDA build needs a newer driver: within one major version, drivers run all minor ones."""
    return bool(runs) and int(built_for.partition(".")[0]) > int(runs.partition(".")[0])
