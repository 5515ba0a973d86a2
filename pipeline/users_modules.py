"""Modules of the user's, beside which ours and every library's come first."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def current_folder_last() -> Iterator[None]:
    """Python looks into the current directory after all else; afterwards it still does, unless it did so before."""
    folder, before = str(Path.cwd()), list(sys.path)
    sys.path[:] = [place for place in before if place not in ("", folder)] + [folder]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        is_there = "" in before or folder in before
        sys.path[:] = before if is_there else [*before, folder]


def hidden_file(module: str, found: Path | None) -> Path | None:
    """The file in the current directory that bears the module's name while another one, ``found``, is taken for it.

    None stands for a module without a file, such as one of Python's own.
    """
    here = Path.cwd().joinpath(*module.split("."))
    for own in (here.with_suffix(".py"), here / "__init__.py"):
        if own.is_file() and (found is None or not own.samefile(found)):
            return own
    return None
