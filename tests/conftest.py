"""Shared pieces of the tests: a cache and a run that several test files read, made once a session."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from hub_server import HubServer
from slurm_cluster import running_slurm

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of trained weights and views that the whole session shares, away from the user's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def cli(cache: Path) -> Command:
    """Run the real command in a process of its own, as a user would."""

    def run(*arguments: object, cwd: Path | None = None, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        if arguments[0:1] == ("run",) and "--workers" not in arguments and "--help" not in arguments:
            arguments = (*arguments, "--workers", 1)  # a second worker costs more to start than it saves here
        command = Path(sys.executable).with_name("dsmi-zoo")
        done = subprocess.run(
            [str(command), *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=600,
            env=os.environ | {"DSMI_ZOO_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


SMALL_ZOO = ("test_resnet.*", "test_vit.*")


@pytest.fixture(scope="session")
def small_run(cli: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six real models; tests that change a run copy it."""
    out = tmp_path_factory.mktemp("runs") / "small"
    cli("run", "--models", *SMALL_ZOO, "--out", out, "--workers", 2)
    return out


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub of one's own on the loopback address, empty."""
    with HubServer() as server:
        yield server


@pytest.fixture
def client_settings(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that knows no hub but ``hub``, and no user's cache or token."""
    ours = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "mine"}
    return {**os.environ, **ours, "DSMI_ZOO_CACHE": str(tmp_path / "cache")}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the log says from INFO on."""
    caplog.set_level(logging.INFO, "dsmi_zoo")
    return caplog


@pytest.fixture(scope="session")
def published() -> dict[str, bytes]:
    """Weights in the format in which timm publishes them, by architecture."""

    def saved(architecture: str, number: int) -> bytes:
        torch.manual_seed(number)
        state = timm.create_model(architecture).state_dict()
        return safetensors.torch.save(state)

    names = ("test_vit", "test_resnet", "test_efficientnet", "resnet18")
    return {name: saved(name, number) for number, name in enumerate(names)}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands talk to a Slurm of the tests' own."""
    with running_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment
