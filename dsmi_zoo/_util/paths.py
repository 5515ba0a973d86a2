"""Make file names from outside (a URL, a hub, an entry) safe, and keep them inside their folder."""

import hashlib
import os
import re
from pathlib import Path

from .errors import InputError

MAX_NAME_BYTES = 120  # bytes; file systems allow 255, and we append to it
MAX_SUFFIX_LENGTH = 16
MAX_BYTES_ON_DISK = 255
MAX_REPOSITORY_LENGTH = 140  # characters; the hub allows 42 for the owner and 96 for the name


def safe_component(text: str, fallback: str) -> str:
    """Return a readable file name for any text: ASCII letters, digits and ``._-``, without a dot at either end.

    Such names stay as they are. Unsafe characters are replaced, so two texts may get the same name; only names that
    are too long get a hash.

    Parameters
    ----------
    fallback
        The stem to use if none is left; must be a safe name.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text.strip()).rstrip(".")
    stem, dot, ending = name.rpartition(".")
    suffix = f".{ending}"
    if not dot or len(suffix) > MAX_SUFFIX_LENGTH:
        stem, suffix = name, ""
    stem = stem.lstrip(".")
    if len(stem) + len(suffix) > MAX_NAME_BYTES:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        stem = f"{stem[: MAX_NAME_BYTES - len(suffix) - 13]}_{digest}"
    return f"{stem or fallback}{suffix}"


def within(folder: Path, name: str) -> Path:
    """Return the path of ``name`` in ``folder``.

    Raises
    ------
    InputError
        When the name is not that of one file, or is a symbolic link out of the folder.
    """
    if not _is_one_component(name):
        raise InputError(f"{name[:MAX_NAME_BYTES]!a} is not the name of a file in {folder}")
    path = folder / name
    try:
        is_inside = not path.is_symlink() or folder.resolve() in path.resolve().parents
    except (OSError, RuntimeError):  # a cycle of links
        is_inside = False
    if not is_inside:
        raise InputError(
            f"{path} leads out of its folder by a symbolic link; put a file or folder in its place"
        )
    return path


def is_file(path: str | Path) -> bool:
    """Return whether there is such a file; False, too, for a name that no file can have."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def repository_problem(name: str) -> str:
    """Return why ``owner/name`` cannot be a repository of the hub, by the hub's rules, or "".

    Different valid repositories have different folders ``owner--name``.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", name):
        return "a repository is owner/name, in letters, digits, '.', '_' and '-'"
    if "--" in name or ".." in name:
        return "the name of a repository holds neither '--' nor '..'"
    if any(part[0] in ".-" or part[-1] in ".-" for part in name.split("/")):
        return "no part of a repository's name begins or ends with '.' or '-'"
    if len(name) > MAX_REPOSITORY_LENGTH:
        return f"the name of a repository has at most {MAX_REPOSITORY_LENGTH} characters"
    return ""


def _is_one_component(name: str) -> bool:
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        return False
    try:
        return len(os.fsencode(name)) <= MAX_BYTES_ON_DISK
    except UnicodeEncodeError:  # a surrogate
        return False


def absolute_path(path: Path) -> Path:
    """Return the absolute path, with ``~`` expanded."""
    return path.expanduser().absolute()


def default_cache() -> Path:
    """Return the folder that keeps weights and views between runs."""
    if "DSMI_ZOO_CACHE" in os.environ:
        return absolute_path(Path(os.environ["DSMI_ZOO_CACHE"]))
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return absolute_path(Path(base)) / "dsmi-zoo"
