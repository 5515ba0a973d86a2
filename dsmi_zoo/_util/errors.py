"""Errors that are told in one line, which says what is wrong and what to do."""

from pathlib import Path

from .text import one_line


class InputError(ValueError):
    """Wrong input, told in one line; the command line prints it and exits with 2."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class DiskFull(OSError):
    """There is no space left; what was finished is kept."""


class DamagedFile(InputError):
    """A file that the project wrote is not as it was written; what made it can make it again.

    Parameters
    ----------
    path
        The file.
    reason
        How it differs.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.reason}; the command that made it makes it again")
