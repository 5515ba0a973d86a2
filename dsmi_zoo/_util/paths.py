"""Names of files that come from outside (a URL, a hub, an entry): made safe, and kept inside their folder."""

import hashlib
import os
import re
from pathlib import Path

from .errors import InputError

LONGEST_NAME = 120  # bytes; file systems take 255, and our own names add to it
LONGEST_SUFFIX = 16
LONGEST_ON_DISK = 255
LONGEST_REPOSITORY = 140  # characters; the hub allows 42 for the owner and 96 for the name


def safe_component(text: str, fallback: str) -> str:
    """A readable name of one file for any text: ASCII letters, digits and ``._-``, and no dot at either end.

    A text that is such a name already stays as it is. Others lose what is unsafe, so that two of them can come to the
    same name; only those that are too long are told apart, by a hash.

    Parameters
    ----------
    fallback
        Stands for a stem of which nothing is left; itself a safe name.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text.strip()).rstrip(".")
    stem, dot, ending = name.rpartition(".")
    suffix = f".{ending}"
    if not dot or len(suffix) > LONGEST_SUFFIX:
        stem, suffix = name, ""
    stem = stem.lstrip(".")
    if len(stem) + len(suffix) > LONGEST_NAME:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        stem = f"{stem[: LONGEST_NAME - len(suffix) - 13]}_{digest}"
    return f"{stem or fallback}{suffix}"


def within(folder: Path, name: str) -> Path:
    """The path of ``name`` in ``folder``.

    Raises
    ------
    InputError
        When the name is not that of one file, or a symbolic link of that name leads out of the folder.
    """
    if not _is_one_component(name):
        raise InputError(f"{name[:LONGEST_NAME]!a} is no name of a file in {folder}")
    path = folder / name
    if path.is_symlink() and not _leads_inside(path, folder):
        raise InputError(
            f"{path} leads out of its folder by a symbolic link; put a file or folder in its place"
        )
    return path


def _leads_inside(link: Path, folder: Path) -> bool:
    try:
        return folder.resolve() in link.resolve().parents
    except (OSError, RuntimeError):  # in a circle
        return False


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def repository_problem(name: str) -> str:
    """Why ``owner/name`` can be no repository of the hub, by its own rules; empty when it can.

    What passes gives different folders ``owner--name`` for different repositories.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", name):
        return "a repository is owner/name, of letters, digits, '.', '_' and '-'"
    if "--" in name or ".." in name:
        return "the name of a repository holds neither '--' nor '..'"
    if any(part[0] in ".-" or part[-1] in ".-" for part in name.split("/")):
        return "no part of a repository's name begins or ends with '.' or '-'"
    if len(name) > LONGEST_REPOSITORY:
        return f"the name of a repository has at most {LONGEST_REPOSITORY} characters"
    return ""


def _is_one_component(name: str) -> bool:
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        return False
    try:
        return len(os.fsencode(name)) <= LONGEST_ON_DISK
    except UnicodeEncodeError:  # half a character
        return False


def found_from_anywhere(path: Path) -> Path:
    """The path, whatever the current folder will be."""
    return path.expanduser().absolute()


def default_cache() -> Path:
    """Where weights and views are kept between runs."""
    if "DSMI_ZOO_CACHE" in os.environ:
        return Path(os.environ["DSMI_ZOO_CACHE"]).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "dsmi-zoo"
