"""``dsmi-zoo verify``."""

from pathlib import Path

import click

from ..options import PATH
from ..terminal import display


@click.command("verify")
@click.argument("dest", type=PATH, metavar="DEST")
@click.option(
    "--rows",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="Measure N embeddings again.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the choice of these rows.",
)
def verify_command(dest: Path, rows: int, seed: int) -> int:
    """Check a published folder: hashes, the page from its rows, and some rows from their embeddings.

    Numbers agree within 0.1%, accuracies within an image: machines add in different orders. Exits with 1 when
    something differs.

    \b
    Examples:
      dsmi-zoo verify boards/imagenet
      dsmi-zoo verify boards/imagenet --rows 50 --seed 1
      dsmi-zoo verify boards/imagenet/releases/2026-03-01-0a1b2c3d
    """
    from ..verify import verify

    return verify(dest, rows, seed, display())
