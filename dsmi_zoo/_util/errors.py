"""Exceptions with a one-line, actionable message."""

from pathlib import Path

from .text import one_line


class InputError(ValueError):
    """Raised for invalid input; the command line prints the message and exits with code 2."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def error_line(error: Exception) -> str:
    """Return a library's error in one line: its type, then at most 300 characters of its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}"


class DiskFull(OSError):
    """Raised when no space is left; finished rows are kept."""


class DamagedFile(InputError):
    """Raised for a file that has changed since dsmi-zoo wrote it, and that can be regenerated.

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
