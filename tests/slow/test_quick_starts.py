"""The quick starts of the README work in a shell as printed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from pages import README, ROOT, code_blocks
from real_weights import LITE, crops, lite_weights

from dsmi_zoo.pipeline.store.run_folder import read_results


def quick_start(title: str) -> list[tuple[str, str]]:
    """Return the code blocks of one section of the README as (language, content)."""
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return code_blocks(section)


def follow(title: str, folder: Path, environment: dict[str, str]) -> str:
    """Run the blocks of a section one after the other, and return what they print."""
    commands_of_ours = str(Path(sys.executable).parent)
    environment = environment | {"PATH": f"{commands_of_ours}:{os.environ['PATH']}"}
    said = ""
    for language, content in quick_start(title):
        shell = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*shell, content],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        said += done.stdout + done.stderr
        assert done.returncode == 0, f"{content}\n{said}"
    return said


@pytest.fixture
def offline(cache: Path) -> dict[str, str]:
    """Return the environment of a user without internet."""
    return {**os.environ, "DSMI_ZOO_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}


def test_the_quick_start_for_ones_own_images_works_as_printed(
    tmp_path: Path, hub: HubServer, client_settings: dict[str, str]
) -> None:
    for number in LITE:
        weights = lite_weights(number, tmp_path).read_bytes()
        hub.repositories[f"timm/tf_efficientnet_lite{number}.in1k"] = {"model.safetensors": weights}
    for name in ("coffee", "chelsea"):
        crops(name, 8, tmp_path / "photos" / name)

    said = follow("Choose a model for your images", tmp_path, client_settings)
    rows = read_results(tmp_path / "runs" / "photos")
    assert rows["model"].tolist() == [f"tf_efficientnet_lite{number}.in1k" for number in LITE]
    assert rows["status"].tolist() == ["ok"] * len(LITE)
    assert (tmp_path / "runs" / "photos" / "report" / "index.html").is_file()
    assert not (tmp_path / "runs" / "search").exists(), "--plan stops before"
    assert "--budget" in said or "models" in said


def test_the_quick_start_for_a_zoo_works_as_printed(
    tmp_path: Path, offline: dict[str, str]
) -> None:
    shutil.copy(ROOT / "jobs" / "profiles" / "gpu.toml", tmp_path)
    said = follow("Measure a zoo", tmp_path, offline)
    assert read_results(tmp_path / "runs" / "part")["status"].eq("ok").all()
    assert read_results(tmp_path / "runs" / "part-sigma-2.0")["sigma"].eq(2).all()
    assert "#SBATCH" in said


def test_the_quick_start_for_a_training_works_as_printed(
    tmp_path: Path, offline: dict[str, str]
) -> None:
    follow("Watch your training", tmp_path, offline)
    assert (tmp_path / "runs" / "mine" / "report" / "index.html").is_file()
