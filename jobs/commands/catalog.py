"""``dsmi-zoo catalog``."""

from typing import Any

import click

from ..options import catalog_options, chosen_settings, options
from ..terminal import display


@click.group("catalog")
def catalog_group() -> None:
    """Look at model catalogues."""


@catalog_group.command("list")
@catalog_options
@options("filters")
@click.pass_context
def catalog_list_command(context: click.Context, **_: Any) -> int:
    """List a catalogue's entries.

    \b
    Examples:
      dsmi-zoo catalog list --models 'test_vit*'
      dsmi-zoo catalog list --catalog imagenet-2025 --kind transformer --max-gmacs 5 --license mit
    """
    from ..catalog import list_entries

    chosen = chosen_settings(context)
    return list_entries(chosen.catalog, chosen.models, chosen.filters)


@catalog_group.command("show")
@click.argument("model", metavar="MODEL[@SIZE]")
@click.option("--catalog", help="Where to look.  [default: digits, imagenet-2025 and imagenet-2023, in this order]")
def catalog_show_command(model: str, catalog: str | None) -> int:
    """Show all that a catalogue knows of a model (MODEL alone: at all its sizes).

    \b
    Example:
      dsmi-zoo catalog show resnet50.a1_in1k --catalog imagenet-2025
    """
    from ..catalog import show

    return show(model, catalog)


@catalog_group.command("check")
@catalog_options
@options("filters")
@options("compute.workers", help="Worker processes.", default_shown="one a core")
@click.pass_context
def catalog_check_command(context: click.Context, **_: Any) -> int:
    """Build each entry without memory or weights, and confirm that it gives an embedding of the declared width.

    \b
    Examples:
      dsmi-zoo catalog check --catalog imagenet-2025 --models 'convnext*'
      dsmi-zoo catalog check --catalog mine.csv
    """
    from ..catalog import check

    chosen = chosen_settings(context)
    return check(chosen.catalog, chosen.models, chosen.filters, chosen.compute.workers, display())
