"""The one error that means: what the user gave is wrong, and this line says what and what to do."""


class InputError(ValueError):
    """Wrong input, told in one line; the command line prints it and exits with 2."""


class DiskFull(OSError):
    """There is no space left; what was finished is kept."""
