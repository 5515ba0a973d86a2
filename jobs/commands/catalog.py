"""``dsmi-zoo catalog``."""

from typing import Any

import click

from ..listing import ORDERS
from ..options import catalog_options, chosen_settings, options
from ..terminal import display


@click.group("catalog")
def catalog_group() -> None:
    """Look at model catalogues."""


@catalog_group.command("list")
@catalog_options
@options("filters")
@click.option(
    "--sort",
    type=click.Choice(list(ORDERS)),
    help="Order by a column; top1 and throughput: the greatest first.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, with all that is known of each entry."
)
@click.pass_context
def catalog_list_command(context: click.Context, sort: str | None, as_json: bool, **_: Any) -> int:
    """List a catalogue's entries: parameters in millions, GMACs of one image, published images per second and top-1.

    \b
    Examples:
      dsmi-zoo catalog list --models 'test_vit*'
      dsmi-zoo catalog list --catalog imagenet-2025 --max-gmacs 2 --sort top1 --limit 10
      dsmi-zoo catalog list --catalog imagenet-2025 --kind transformer --max-gmacs 5 --license mit
    """
    from ..catalog import list_entries

    chosen = chosen_settings(context)
    return list_entries(chosen.catalog, chosen.models, chosen.filters, sort, as_json)


@catalog_group.command("show")
@click.argument("model", metavar="MODEL[@SIZE]")
@click.option(
    "--catalog",
    help="Where to look.  [default: digits, imagenet-2025 and imagenet-2023, in this order]",
)
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
@options("compute.workers", help="Worker processes.", default_shown="one per core")
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
