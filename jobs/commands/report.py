"""``dsmi-zoo report``."""

from pathlib import Path

import click

from ..options import PATH, out_option
from ..terminal import display


@click.command("report")
@out_option
@click.option(
    "--compare", type=PATH, metavar="OUT", help="Set another run, or a published folder, beside it."
)
@click.option(
    "--class-subsets",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Repeat the correlation on N random halves of the classes, from the kept embeddings; 50 tell much.",
)
def report_command(out: Path, compare: Path | None, class_subsets: int | None) -> int:
    """Write the report again, from the rows alone.

    \b
    Examples:
      dsmi-zoo report --out runs/digits
      dsmi-zoo report --out runs/digits --compare runs/digits-sigma-2.0
      dsmi-zoo report --out runs/digits --class-subsets 50
    """
    from ..report import report

    return report(out, compare, class_subsets or 0, display())
