"""``dsmi-zoo status``."""

from pathlib import Path

import click

from ..options import out_option


@click.command("status")
@out_option
def status_command(out: Path) -> int:
    """What of a run is done, failed (and why) and missing.

    \b
    Example:
      dsmi-zoo status --out runs/digits
    """
    from ..status import status

    return status(out)
