"""What the command line prints to: the log's lines and the bars share one console, so that neither breaks the other."""

import functools
import io
import logging
import sys
from typing import TYPE_CHECKING

from dsmi_zoo._util.text import printable

if TYPE_CHECKING:
    from .progress import Terminal


PACKAGE = "dsmi_zoo"


@functools.cache
def _terminal() -> "Terminal":
    from rich.console import Console

    from .progress import Terminal

    return Terminal(Console())


def display(stderr: bool = False) -> "Terminal":
    """Where bars are shown, and lines of the log: stdout, unless that holds JSON."""
    terminal = _terminal()
    terminal.console.stderr = stderr
    return terminal


def print_line(line: str = "") -> None:
    """Print a line on stdout; of text that may be somebody else's, what a terminal would obey is shown as an escape."""
    print(printable(line))


def print_error(line: str) -> None:
    """The same on stderr, after the command's name."""
    print(f"dsmi-zoo: {printable(line)}", file=sys.stderr)


def accept_any_text() -> None:
    """Let stdout and stderr show what their encoding lacks as an escape; an error there would hide what is told."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class LogLines(logging.Handler):
    """Prints what the package logs as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message as it is; what goes wrong meanwhile goes wrong for the command."""
        _terminal().line(record.getMessage())


def show_log() -> None:
    """Let the command line show what the library logs."""
    log = logging.getLogger(PACKAGE)
    log.setLevel(logging.INFO)
    log.addHandler(LogLines())


def show_details() -> None:
    """Show what is done within each step, too."""
    logging.getLogger(PACKAGE).setLevel(logging.DEBUG)
