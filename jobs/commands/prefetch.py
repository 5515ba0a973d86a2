"""``dsmi-zoo prefetch``."""

from typing import Any

import click

from ..options import catalog_options, chosen_settings, options
from ..terminal import display


@click.command("prefetch")
@catalog_options
@options("filters")
@options("compute.cache")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    help="Number of downloads at a time.  [default: 4]",
)
@click.pass_context
def prefetch_command(context: click.Context, jobs: int, **_: Any) -> int:
    """Download the weights that a run will need, for nodes without internet; an interrupted transfer goes on.

    \b
    Examples:
      dsmi-zoo prefetch --catalog mine.csv
      dsmi-zoo prefetch --catalog imagenet-2025 --max-gmacs 2 --license apache-2.0
      dsmi-zoo prefetch --catalog mine.csv --models 'resnet*' --cache shared/cache --jobs 8
    """
    from ..prefetch import prefetch

    chosen = chosen_settings(context)
    return prefetch(
        chosen.catalog,
        chosen.models,
        chosen.filters,
        chosen.compute.cache.absolute(),
        jobs,
        display(),
    )
