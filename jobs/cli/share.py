"""Commands that export and publish a run, and verify a published one."""

from pathlib import Path
from typing import Literal

import click

from ..terminal import display, print_line
from .options import PATH, out_option


@click.command("export")
@out_option
@click.option(
    "--to",
    required=True,
    type=PATH,
    metavar="FILE",
    help="A file that ends in .csv, .parquet or .tex; for figures, a folder.",
)
@click.option(
    "--what",
    type=click.Choice(["rows", "correlations", "figures"]),
    default="rows",
    show_default=True,
    help="What to write; correlations are those of the report.",
)
def export_command(out: Path, to: Path, what: Literal["rows", "correlations", "figures"]) -> int:
    """Write the rows of a run, or its correlations, as one flat table, or its figures as PDF, SVG and PNG.

    \b
    Examples:
      dsmi-zoo export --out runs/digits --to rows.csv
      dsmi-zoo export --out runs/digits --to correlations.tex --what correlations
      dsmi-zoo export --out runs/digits --to figures --what figures
    """
    from ..tools.export import export

    return export(out, to, what, display())


@click.command("publish")
@click.argument("out", type=PATH, metavar="OUT")
@click.argument("dest", type=PATH, metavar="DEST")
@click.option("--title", metavar="TEXT", help="Title of the release.")
@click.option(
    "--license",
    "license_",
    metavar="ID",
    help="License of the numbers, as the hub names it: cc-by-4.0, cc0-1.0, ...",
)
@click.option(
    "--embeddings",
    is_flag=True,
    help="Include the embeddings, so that others can check the numbers.",
)
@click.option(
    "--push", metavar="OWNER/NAME", help="Upload it to the Hugging Face hub as this data set."
)
@click.option(
    "--public",
    is_flag=True,
    help="Make a data set that --push creates public, not private.",
)
def publish_command(
    out: Path,
    dest: Path,
    title: str | None,
    license_: str | None,
    embeddings: bool,
    push: str | None,
    public: bool,
) -> int:
    """Publish a run as a folder that any static web host, or the Hugging Face hub as a data set, can serve.

    It holds the page, all rows as one Parquet file, the images' names (no images), settings, versions, a data set card
    and the hash of every file. An earlier release in DEST moves into DEST/releases, marked as superseded.

    \b
    Examples:
      dsmi-zoo publish runs/digits boards/digits
      dsmi-zoo publish runs/imagenet boards/imagenet --license cc-by-4.0 --embeddings
      dsmi-zoo publish runs/imagenet boards/imagenet --push me/imagenet-board
      dsmi-zoo verify  boards/imagenet
    """
    from ..publishing.publish import publish

    if public and push is None:
        raise click.UsageError("--public is for --push OWNER/NAME")
    if push is not None:
        from ..publishing.publish import refuse_wrong_name

        refuse_wrong_name(push)
    shown = display()
    with shown.never_silent():
        release = publish(out, dest, title, license_, embeddings, shown)
    print_line(f"Release {release.id}: {dest / 'index.html'}")
    if license_ is None:
        print_line(
            "It has no license, so others do not know how they may use it; add one, such as --license cc-by-4.0"
        )
    if push is not None:
        from ..publishing.publish import push as push_release

        with shown.never_silent():
            where = push_release(dest, push, public, shown)
        print_line(f"Pushed: {where}")
    return 0


@click.command("verify")
@click.argument("dest", type=PATH, metavar="DEST")
@click.option(
    "--rows",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="Number of rows to recompute from their embeddings.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Random seed that selects these rows.",
)
def verify_command(dest: Path, rows: int, seed: int) -> int:
    """Check a published folder: hashes, the page from its rows, and some rows from their embeddings.

    Numbers must agree within 0.1%, accuracies within one image, because machines add in different orders. Exits with 1
    when something differs.

    \b
    Examples:
      dsmi-zoo verify boards/imagenet
      dsmi-zoo verify boards/imagenet --rows 50 --seed 1
      dsmi-zoo verify boards/imagenet/releases/2026-03-01-0a1b2c3d
    """
    from ..publishing.verify import verify

    shown = display()
    with shown.never_silent():
        return verify(dest, rows, seed, shown)
