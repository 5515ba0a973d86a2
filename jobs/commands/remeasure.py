"""``dsmi-zoo remeasure``."""

from pathlib import Path
from typing import Any

import click

from ..options import CLUSTER, PATH, given_settings, options, out_option
from ..terminal import display


@click.command("remeasure")
@out_option
@click.option(
    "--into",
    type=PATH,
    help="Where the new rows go.  [default: beside --out, named after the changes]",
)
@options("measures", *CLUSTER, default_shown="the run's")
@options("compute.write_report")
@click.pass_context
def remeasure_command(context: click.Context, out: Path, into: Path | None, **_: Any) -> int:
    """Other settings or new measures from the kept embeddings of a run, into another directory.

    \b
    Examples:
      dsmi-zoo remeasure --out runs/digits --sigma 2
      dsmi-zoo remeasure --out runs/digits --into runs/mine --measure my_measures:effective_rank
    """
    from ..remeasure import remeasure

    given = given_settings(context)
    return remeasure(out, into, given.get("measures", {}), given.get("compute", {}), display())
