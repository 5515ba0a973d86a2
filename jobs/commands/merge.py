"""``dsmi-zoo merge``."""

from pathlib import Path

import click

from ..options import PATH
from ..terminal import display


@click.command("merge")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="A B ...")
@click.option(
    "--out",
    required=True,
    type=PATH,
    help="The joint run's directory; a run that is there counts too.",
)
def merge_command(runs: tuple[Path, ...], out: Path) -> int:
    """Join runs of one configuration on the same images, and write their report; they themselves stay as they are.

    Of two rows of one entry the finished one is kept, else the newest.

    \b
    Examples:
      dsmi-zoo merge runs/first-half runs/second-half --out runs/whole
      dsmi-zoo merge runs/further --out runs/whole
    """
    from ..merge import merge

    return merge(runs, out, display())
