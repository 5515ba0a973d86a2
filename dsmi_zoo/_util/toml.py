"""Read TOML files."""

import tomllib
from pathlib import Path
from typing import Any

from .errors import InputError
from .text import shortened


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises
    ------
    InputError
        For a file that cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{shortened(str(path), 300)}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also not UTF-8, or nested too deep
        raise InputError(f"{path}: cannot be read as TOML: {shortened(str(error), 200)}") from None
