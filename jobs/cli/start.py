"""The entry point of the command: Ctrl-C ends it in one line even while the rest is imported."""

import gc
import sys


def main() -> None:
    """Run the command line."""
    # Imports create several 100,000 permanent objects; by default, garbage collection starts after every 700 new ones.
    gc.set_threshold(50_000)
    try:
        from .main import main as command_line

        command_line()
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # after the terminal's ^C
        print("dsmi-zoo: stopped before it began", file=sys.stderr)
        sys.exit(130)
