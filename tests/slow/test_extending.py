"""The examples of docs/extending.md: each is applied to a copy of the project, and the tests it adds pass there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("data_catalog", "pipeline", "reports", "jobs", "dsmi_zoo", "docs", "tests")
IGNORED = shutil.ignore_patterns("__pycache__", "boards", "pictures")
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.patch"))


def copy_of_the_project(folder: Path) -> Path:
    """Copy the sources to ``folder``; return the folder below it from which the package can be imported."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=IGNORED)
    shutil.copy(ROOT / "pyproject.toml", folder)
    package = folder / "imported" / "dsmi_zoo"
    package.mkdir(parents=True)
    for part in ("data_catalog", "pipeline", "reports", "jobs"):
        (package / part).symlink_to(folder / part)
    for part in ("__init__.py", "_util"):
        (package / part).symlink_to(folder / "dsmi_zoo" / part)
    return package.parent


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_of_how_to_add_something_applies_and_works(
    example: Path, tmp_path: Path
) -> None:
    package = copy_of_the_project(tmp_path)
    subprocess.run(["git", "apply", str(example)], cwd=tmp_path, check=True)
    new_tests = re.findall(r"^\+\+\+ b/(tests/test_\w+\.py)$", example.read_text(), re.MULTILINE)
    assert new_tests
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *new_tests],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
