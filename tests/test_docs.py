"""The README and the pages of docs/ match the project."""

import re
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from command_tree import commands
from pages import DOCS, README, ROOT, code_blocks

from dsmi_zoo.jobs.cli.main import cli
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, MEASURES

TESTS = ROOT / "tests"
MAX_README_LINES = 170
MAX_TEST_NAME_LENGTH = 80
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")])


def generator() -> ModuleType:
    """Load the script that writes the generated pages."""
    spec = spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_a_front_page() -> None:
    assert len(README.splitlines()) <= MAX_README_LINES
    (_, first), *_ = code_blocks(README)
    assert [line.split("  ")[0] for line in first.splitlines()] == ["make run", "make test"]


@pytest.mark.parametrize(
    "example", sorted((DOCS / "examples").glob("*.patch")), ids=lambda path: path.stem
)
def test_an_example_of_how_to_add_something_applies(example: Path) -> None:
    subprocess.run(["git", "apply", "--check", str(example)], cwd=ROOT, check=True)


def test_the_generated_pages_are_those_of_the_code() -> None:
    for path, text in generator().pages().items():
        assert path.read_text(encoding="utf-8") == text, "run `python docs/generate.py`"


def test_every_score_is_in_the_table_of_measures() -> None:
    page = (DOCS / "measures.md").read_text(encoding="utf-8")
    missing = [
        score.name for score in (*MEASURES, *COMPARISONS) if f"\n| `{score.name}` |" not in page
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_to_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if not link.startswith(("http", "#"))]
    missing = [file for file in files if not (page.parent / file).is_file()]
    assert not missing


def test_files_that_a_page_names_exist() -> None:
    named = re.compile(r"`((?:benchmarks|docs|jobs|pipeline|reports|data_catalog|tests)/[\w./-]+)`")
    missing = {
        f"{page.name}: {path}"
        for page in PAGES
        for path in named.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    }
    assert not missing


def shown_commands(page: Path) -> list[list[str]]:
    """Return the words after ``dsmi-zoo`` of each line of the page's shell blocks."""
    blocks = [
        content
        for language, content in code_blocks(page.read_text(encoding="utf-8"))
        if language == "bash"
    ]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [line.partition(" #")[0].split() for line in lines]
    return [line[line.index("dsmi-zoo") + 1 :] for line in words if "dsmi-zoo" in line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_shows_use_existing_options(page: Path) -> None:
    by_name = dict(commands(cli))
    for words in shown_commands(page):
        name = " ".join(words[:2]) if " ".join(words[:2]) in by_name else words[0]
        takes_options_of = ["submit slurm", "run"] if name == "submit slurm" else [name]
        parameters = [parameter for one in takes_options_of for parameter in by_name[one].params]
        known = {option for parameter in parameters for option in parameter.opts}
        unknown = [word for word in words if word.startswith("--") and word not in known]
        assert not unknown, " ".join(words)


def test_names_of_tests_have_at_most_80_characters() -> None:
    names = re.findall(
        r"^def (test_\w+)",
        "\n".join(path.read_text() for path in TESTS.rglob("*.py")),
        re.MULTILINE,
    )
    assert [name for name in names if len(name) > MAX_TEST_NAME_LENGTH] == []
