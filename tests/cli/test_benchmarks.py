"""Imports of the scripts under ``benchmarks/`` and ``docs/``, most of which no test runs, exist in the package."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")])


def imported(script: Path) -> list[tuple[str, str]]:
    """Return each (module, name) that a script imports from the package, including imports within functions."""
    return [
        (node.module, name.name)
        for node in ast.walk(ast.parse(script.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dsmi_zoo")
        for name in node.names
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_what_a_benchmark_imports_from_the_package_is_there(script: Path) -> None:
    for module, name in imported(script):
        assert hasattr(import_module(module), name) or import_module(f"{module}.{name}")
