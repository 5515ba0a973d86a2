"""Exceptions with a one-line, actionable message."""

from pathlib import Path

from .text import one_line


class InputError(ValueError):
    """Raised for wrong input; the command line prints the line and exits with 2."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def named(error: Exception) -> str:
    """Return an error of a library in one line: its type, then at most 300 characters of its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}"


class DiskFull(OSError):
    """Raised when no space is left; finished rows are kept."""


class DamagedFile(InputError):
    """Raised for a file of ours that has changed since it was written, and can be made again.

    Parameters
    ----------
    path
        The file.
    reason
        What differs.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.reason}; the command that made it makes it again")
