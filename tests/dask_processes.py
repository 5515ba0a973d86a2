"""Dask's own scheduler and workers, each a process, as somebody else would have started them."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_dask(
    port: int, workers: int, cache: Path, folder: Path
) -> list["subprocess.Popen[bytes]"]:
    """Start a scheduler at ``tcp://127.0.0.1:port`` and its workers, in ``folder``; the scheduler comes first."""
    address = f"tcp://127.0.0.1:{port}"
    # Without a dashboard, too, they listen for HTTP: by default all schedulers on 8787, workers on every address.
    here = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    # Those of a test session that was killed end by themselves.
    scheduler = ["scheduler", "--port", str(port), "--idle-timeout", "1h", *here]
    worker = ["worker", address, "--nthreads", "1", "--death-timeout", "60", *here]
    environment = os.environ | {"DSMI_ZOO_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in [scheduler, *[worker] * workers]
    ]


def stop(processes: list["subprocess.Popen[bytes]"]) -> None:
    """End workers, then their scheduler: a worker whose scheduler is gone waits for it."""
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
