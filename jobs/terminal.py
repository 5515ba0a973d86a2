"""What the command line prints to: the log's lines and the bars share one console, so that neither breaks the other."""

import functools
import logging
from typing import TYPE_CHECKING

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
