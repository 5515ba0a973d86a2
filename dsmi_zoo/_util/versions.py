"""The versions of libraries and code behind a row; recorded, but never part of an identity."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("dsmi-zoo", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow")


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of every library that can change a number."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def git_commit() -> str | None:
    """Return the commit of this checkout, with ``-dirty`` after changes; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    # Excluding all tags leaves the hash alone.
    options = ["--always", "--abbrev=40", "--exclude=*", "--dirty"]
    command = ["git", "-C", str(folder), "describe", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
