"""The one error that means: what the user gave is wrong, and this line says what and what to do."""

from .text import one_line


class InputError(ValueError):
    """Wrong input, told in one line; the command line prints it and exits with 2."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class DiskFull(OSError):
    """There is no space left; what was finished is kept."""
