"""Checks of the GPUs: torch's build against NVIDIA's driver, and whether each GPU can be used.

A broken CUDA can end the process that asks torch, so the doctor runs ``python -m dsmi_zoo.jobs.doctor.gpus``, which
prints torch's answers as JSON.
"""

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsmi_zoo._util.text import size_in_words

from .report import Finding, note, ok, problem

# Importing torch from a cold parallel file system is slow, and the job on a node has two minutes in all.
TORCH_ANSWERS_WITHIN_S = 60.0


@dataclass(frozen=True)
class NvidiaDriver:
    """NVIDIA's driver: its version, the newest CUDA that it runs, and its GPUs; or why it does not answer."""

    version: str = ""
    cuda: str = ""
    gpus: tuple[str, ...] = ()
    error: str = ""


def nvidia_driver() -> NvidiaDriver | None:
    """Return the driver as nvidia-smi describes it; None where there is no such command."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30)
        head = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return NvidiaDriver(error=_one_line(error))
    if listed.returncode:
        message = " ".join((listed.stdout or listed.stderr).split())[:200]
        return NvidiaDriver(error=message or "nvidia-smi fails")
    lines = [line.split(", ", 1) for line in listed.stdout.splitlines() if ", " in line]
    version = lines[0][0] if lines else ""
    cuda = re.search(r"CUDA[\w ]* Version\s*:\s*(\d+\.\d+)", head.stdout)
    return NvidiaDriver(version, cuda[1] if cuda else "", tuple(name for _, name in lines))


def ask_torch() -> dict[str, Any]:
    """Return what `torch_facts` prints in another process, or ``{"error": ...}``."""
    command = [sys.executable, "-P", "-m", "dsmi_zoo.jobs.doctor.gpus"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=TORCH_ANSWERS_WITHIN_S
        )
    except subprocess.TimeoutExpired:
        return {"error": f"does not answer within {TORCH_ANSWERS_WITHIN_S:.0f} s"}
    if asked.returncode == 0:
        return dict(json.loads(asked.stdout.splitlines()[-1]))
    last_line = (asked.stderr.strip().splitlines() or ["no message"])[-1]
    if asked.returncode > 0:
        return {"error": f"cannot be imported: {last_line}"}
    return {"error": f"is ended by {signal.Signals(-asked.returncode).name}: {last_line}"}


def gpu_findings(
    driver: NvidiaDriver | None,
    torch: Mapping[str, Any],
    visible: Sequence[str],
    *,
    wants_gpu: bool,
) -> list[Finding]:
    """Check torch's build against the driver, and each GPU that a process may use."""
    if "error" in torch:
        do = "reinstall torch, for this machine's driver"
        if "SIGKILL" in torch["error"]:
            do = "memory may be short; ask for more"
        return [problem("torch", f"torch {torch['error']}", do)]
    build = "CPU"
    if torch["cuda"]:
        build = f"CUDA {torch['cuda']}"
    elif torch["hip"]:
        build = f"ROCm {torch['hip']}"
    findings = [ok("torch", f"{torch['version']}, {build} build")]
    for name, error in torch["unimportable"].items():
        do = f"install the {name} that belongs to torch {torch['version']}"
        findings.append(problem(name, f"cannot be imported: {error}", do))
    if driver is not None and driver.version:
        runs = f", CUDA up to {driver.cuda}" if driver.cuda else ""
        findings.append(ok("GPU driver", f"{driver.version}{runs}"))
    if not torch["devices"]:
        findings.append(_no_gpu(driver, torch, visible, wants_gpu=wants_gpu))
    for number, device in enumerate(torch["devices"]):
        if device["error"]:
            do = "install a torch that supports this GPU, or exclude it by CUDA_VISIBLE_DEVICES"
            found = f"{device['name']}: {device['error']}"
            findings.append(problem(f"GPU {number}", found, do))
        else:
            found = f"{device['name']}, {size_in_words(device['memory'])}"
            findings.append(ok(f"GPU {number}", found))
    return findings


def _no_gpu(
    driver: NvidiaDriver | None,
    torch: Mapping[str, Any],
    visible: Sequence[str],
    *,
    wants_gpu: bool,
) -> Finding:
    """Return a finding with the most likely reason why torch sees no GPU."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    problem_if_wanted = problem if wants_gpu else note
    if driver is not None and driver.gpus:
        there = f"{len(driver.gpus)} ({driver.gpus[0]})"
        if chosen is not None and not visible:
            found = f"CUDA_VISIBLE_DEVICES={chosen!r} hides all {len(driver.gpus)}"
            return problem_if_wanted("GPUs", found, "unset it, or name the GPUs to use")
        readme = "see Install in the README"
        if not torch["cuda"]:
            found = f"{there}, which this build of torch cannot use"
            return problem(
                "GPUs", found, f"install torch for CUDA {driver.cuda} or older, {readme}"
            )
        built_for, runs = torch["cuda"].partition(".")[0], driver.cuda.partition(".")[0]
        # Within one major version, drivers run all minor ones.
        if runs and int(built_for) > int(runs):
            found = (
                f"{there}; torch is built for CUDA {torch['cuda']}, the driver runs {driver.cuda}"
            )
            do = f"install torch for CUDA {runs}.x, or a newer driver; {readme}"
            return problem("GPUs", found, do)
        found = f"{there}, but torch cannot use them: {torch['reason']}"
        return problem("GPUs", found, "reinstall the driver, or a torch that fits it")
    if driver is not None and driver.error:
        do = "models run on the CPU; if there is a GPU, repair its driver"
        return problem_if_wanted("GPUs", f"nvidia-smi: {driver.error}", do)
    if visible:
        found = f"CUDA_VISIBLE_DEVICES={chosen}, but this machine has no NVIDIA driver"
        do = (
            "ask the administrators, or use another partition; without a GPU, models run on the CPU"
        )
        return problem_if_wanted("GPUs", found, do)
    if wants_gpu:
        do = "ask for a GPU (gpus, partition in the --profile), or use --cluster local"
        return problem("GPUs", "none", do)
    return note("GPUs", "none", "models run on the CPU")


def torch_facts() -> dict[str, Any]:
    """Return torch's version and build, its devices, and what fails.

    ``cuda`` is the CUDA version of the build, None for a CPU build; ``reason`` says why no device is available;
    ``unimportable`` holds the error of each library that cannot be imported with this torch.
    """
    import torch

    unimportable = {}
    for name in ("torchvision", "timm"):
        try:
            importlib.import_module(name)
        except Exception as error:  # a build for another torch fails in many ways
            unimportable[name] = _one_line(error)
    reason = ""
    devices = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not torch.cuda.is_available() and (torch.version.cuda or torch.version.hip):
            try:
                torch.cuda.init()
            except Exception as error:
                reason = _one_line(error)
        if not reason:
            devices = [_device(torch, number) for number in range(torch.cuda.device_count())]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "unimportable": unimportable,
        "reason": reason,
        "devices": devices,
    }


def _device(torch: Any, number: int) -> dict[str, Any]:
    """Multiply matrices on a device, and return its name, its memory and what goes wrong."""
    try:
        properties = torch.cuda.get_device_properties(number)
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        product = float((ones @ ones).sum())
    except Exception as error:
        return {"name": f"cuda:{number}", "memory": 0, "error": _one_line(error)}
    wrong = "" if product == 64**3 else f"a product comes to {product}, not {64**3}"
    return {"name": properties.name, "memory": properties.total_memory, "error": wrong}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


if __name__ == "__main__":
    print(json.dumps(torch_facts()))
