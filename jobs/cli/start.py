"""Where the command begins: from its first lines on, Ctrl-C ends it in one line, also while the rest is imported."""

import gc
import sys


def main() -> None:
    """Run the command line."""
    # Imports create 100,000s of objects that stay; by default they are searched for garbage after every 700.
    gc.set_threshold(50_000)
    try:
        from .main import main as command_line

        command_line()
    except KeyboardInterrupt:
        print("\ndsmi-zoo: stopped before it began", file=sys.stderr)
        sys.exit(130)
