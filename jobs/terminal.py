"""The command's terminal: log lines and bars share one console, so that neither breaks the other."""

import functools
import io
import logging
import sys
from typing import TYPE_CHECKING

from dsmi_zoo._util.text import printable

if TYPE_CHECKING:
    from .progress import Display

PACKAGE = "dsmi_zoo"


@functools.cache
def _terminal() -> "Display":
    from rich.console import Console

    from .progress import Display

    return Display(Console())


def display(stderr: bool = False) -> "Display":
    """Return the display of bars and of the log's lines: on stdout, or on stderr while stdout holds JSON."""
    terminal = _terminal()
    if terminal.console is not None:
        terminal.console.stderr = stderr
    return terminal


def print_line(line: str = "") -> None:
    """Print a line on stdout, with escapes in place of control characters."""
    print(printable(line))


def print_error(line: str) -> None:
    """Print a line on stderr after the command's name, with escapes in place of control characters."""
    print(f"dsmi-zoo: {printable(line)}", file=sys.stderr)


def accept_any_text() -> None:
    """Let stdout and stderr print escapes for characters that their encoding lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class LogLines(logging.Handler):
    """A handler that prints the package's log as plain lines; errors propagate."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        _terminal().line(record.getMessage())


def show_log() -> None:
    """Print what the library logs."""
    log = logging.getLogger(PACKAGE)
    log.setLevel(logging.INFO)
    log.addHandler(LogLines())
    logging.getLogger("asyncio").addFilter(_is_worth_showing)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    """Return False for asyncio's records on Dask's connections that closed when the command was stopped."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "CommClosedError"


def show_details() -> None:
    """Print the steps of the workers as well."""
    logging.getLogger(PACKAGE).setLevel(logging.DEBUG)
