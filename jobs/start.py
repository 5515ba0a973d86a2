"""Where the command begins: from its first lines on, Ctrl-C ends it in one line, also while the rest is imported."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from .cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        print("\ndsmi-zoo: stopped before it began", file=sys.stderr)
        sys.exit(130)
