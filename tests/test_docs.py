"""What the README and the pages of docs/ say of the project is so."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from hub_server import HubServer
from real_weights import LITE, crops, lite_weights
from test_command_options import commands

from dsmi_zoo.jobs.cli import cli
from dsmi_zoo.pipeline.measures.registry import COMPARISONS, MEASURES
from dsmi_zoo.pipeline.store import read_results

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TESTS = ROOT / "tests"
LONGEST_README = 170
LONGEST_TEST_NAME = 80
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")])


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The language and the content of each fenced block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def generator() -> ModuleType:
    """The script that writes the generated pages."""
    spec = spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_a_front_page() -> None:
    assert len(README.splitlines()) <= LONGEST_README
    (_, first), *_ = code_blocks(README)
    assert [line.split("  ")[0] for line in first.splitlines()] == ["make run", "make test"]


def test_the_generated_pages_are_those_of_the_code() -> None:
    for path, text in generator().pages().items():
        assert path.read_text(encoding="utf-8") == text, "run `python docs/generate.py`"


def test_every_score_stands_among_the_measures() -> None:
    page = (DOCS / "measures.md").read_text(encoding="utf-8")
    missing = [
        score.name for score in (*MEASURES, *COMPARISONS) if f"\n| `{score.name}` |" not in page
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_to_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if not link.startswith(("http", "#"))]
    missing = [file for file in files if not (page.parent / file).is_file()]
    assert not missing


def test_files_that_a_page_names_are_there() -> None:
    named = re.compile(r"`((?:benchmarks|docs|jobs|pipeline|reports|data_catalog|tests)/[\w./-]+)`")
    missing = {
        f"{page.name}: {path}"
        for page in PAGES
        for path in named.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    }
    assert not missing


def shown_commands(page: Path) -> list[list[str]]:
    """The words after ``dsmi-zoo`` of each line of the page's blocks for the shell."""
    blocks = [
        content
        for language, content in code_blocks(page.read_text(encoding="utf-8"))
        if language == "bash"
    ]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [line.partition(" #")[0].split() for line in lines]
    return [line[line.index("dsmi-zoo") + 1 :] for line in words if "dsmi-zoo" in line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_shows_have_options_that_there_are(page: Path) -> None:
    by_name = dict(commands(cli))
    for words in shown_commands(page):
        name = " ".join(words[:2]) if " ".join(words[:2]) in by_name else words[0]
        takes_options_of = ["submit slurm", "run"] if name == "submit slurm" else [name]
        parameters = [parameter for one in takes_options_of for parameter in by_name[one].params]
        known = {option for parameter in parameters for option in parameter.opts}
        unknown = [word for word in words if word.startswith("--") and word not in known]
        assert not unknown, " ".join(words)


def quick_start(title: str) -> list[tuple[str, str]]:
    """The blocks of one section of the README, as they are printed."""
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
    """The environment of somebody without internet."""
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
    assert read_results(tmp_path / "runs" / "digits")["status"].eq("ok").all()
    assert read_results(tmp_path / "runs" / "digits-sigma-2.0")["sigma"].eq(2).all()
    assert "#SBATCH" in said


def test_the_quick_start_for_a_training_works_as_printed(
    tmp_path: Path, offline: dict[str, str]
) -> None:
    follow("Watch your training", tmp_path, offline)
    assert (tmp_path / "runs" / "mine" / "report" / "index.html").is_file()


def test_names_of_tests_are_sentences_of_80_characters_at_most() -> None:
    names = re.findall(
        r"^def (test_\w+)",
        "\n".join(path.read_text() for path in TESTS.rglob("*.py")),
        re.MULTILINE,
    )
    assert [name for name in names if len(name) > LONGEST_TEST_NAME] == []


def test_the_fast_tests_are_files_that_there_are() -> None:
    named = (TESTS / "fast.txt").read_text(encoding="utf-8").split()
    assert [path for path in named if not (ROOT / path).is_file()] == []
    assert len(set(named)) == len(named)
