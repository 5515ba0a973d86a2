"""Commands that inspect runs, models and machines: status, report, measure, catalog, doctor, time and convert."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import click

from dsmi_zoo.pipeline.config.compute import CLUSTERS

from ..terminal import display
from ..tools.catalog import ORDERS
from .options import (
    PATH,
    TimeType,
    catalog_options,
    chosen_settings,
    given_settings,
    options,
    out_option,
)


@click.command("status")
@out_option
def status_command(out: Path) -> int:
    """Show which entries of a run are done, failed (and why) or missing.

    \b
    Example:
      dsmi-zoo status --out runs/digits
    """
    from ..runs.status import status

    return status(out)


@click.command("report")
@out_option
@click.option(
    "--compare",
    type=PATH,
    metavar="OUT",
    multiple=True,
    help="Compare with another run, a published folder or, of a monitored training, another one; may be repeated.",
)
@click.option(
    "--thumbnails",
    is_flag=True,
    help="Show the images to look at, of a run on images of one's own; the page then holds images.",
)
@click.option("--watch", is_flag=True, help="Of a monitored training: follow it until it ends.")
def report_command(out: Path, compare: tuple[Path, ...], thumbnails: bool, watch: bool) -> int:
    """Rebuild the report from the rows alone.

    \b
    Examples:
      dsmi-zoo report --out runs/digits
      dsmi-zoo report --out runs/digits --compare runs/digits-sigma-2.0
      dsmi-zoo report --out runs/photos --thumbnails
    """
    shown = display()
    # Watching a training is mostly waiting, so silence does not mean a long computation.
    with nullcontext() if watch else shown.never_silent("Reading the rows"):
        from ..runs.conclude import report

        return report(out, compare, watch, thumbnails)


@click.command("pairs")
@click.argument("models", nargs=-1, metavar="[MODEL[@SIZE]]...")
@out_option
def pairs_command(models: tuple[str, ...], out: Path) -> int:
    """Probe pairs of a run's models on their kept embeddings, and say whether a second backbone adds anything.

    Without a MODEL, all pairs, or those of the best models if all would take too long. The report then has a section on
    them; the hits are in OUT/pairs.parquet.

    \b
    Examples:
      dsmi-zoo pairs --out runs/photos
      dsmi-zoo pairs resnet50.a1_in1k vit_base_patch16_224.dino --out runs/photos
    """
    shown = display()
    with shown.never_silent("Reading the rows"):
        from ..tools.pairs import pair_models

        return pair_models(out, models, shown)


@click.command("measure")
@click.argument("embeddings", type=PATH, metavar="EMBEDDINGS")
@click.argument("labels", type=PATH, required=False, metavar="[LABELS]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options("measures")
@click.pass_context
def measure_command(
    context: click.Context, embeddings: Path, labels: Path | None, as_json: bool, **_: Any
) -> int:
    """Measure one embedding, an array [n, d]; with labels, an array [n], also their mutual information.

    Files are .npy, .npz, .csv, .parquet, .safetensors or .pt; FILE:NAME selects one array of a file that holds several.

    \b
    Examples:
      dsmi-zoo measure Z.npy y.csv
      dsmi-zoo measure embeddings.npz:Z table.csv:species
      dsmi-zoo measure table.csv table.csv:species          (the column is left out of the embedding)
      dsmi-zoo measure Z.npy y.npy --sigma 2 --measure my_measures:effective_rank
    """
    from ..tools.measure import measure

    return measure(embeddings, labels, given_settings(context).get("measures", {}), as_json)


@click.group("catalog")
def catalog_group() -> None:
    """Inspect model catalogues."""


@catalog_group.command("list")
@catalog_options
@options("filters")
@click.option(
    "--sort",
    type=click.Choice(list(ORDERS)),
    help="Sort by a column; top1 and throughput from the greatest.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON with everything known about each entry."
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
    from ..tools.catalog import list_entries

    chosen = chosen_settings(context)
    return list_entries(chosen.catalog, chosen.models, chosen.filters, sort, as_json)


@catalog_group.command("show")
@click.argument("model", metavar="MODEL[@SIZE]")
@click.option(
    "--catalog",
    help="Catalogue to search.  [default: digits, imagenet-2025 and imagenet-2023, in this order]",
)
def catalog_show_command(model: str, catalog: str | None) -> int:
    """Show everything that a catalogue knows about a model (MODEL alone: at all its sizes).

    \b
    Example:
      dsmi-zoo catalog show resnet50.a1_in1k --catalog imagenet-2025
    """
    from ..tools.catalog import show

    return show(model, catalog)


@catalog_group.command("check")
@catalog_options
@options("filters")
@options("compute.workers", help="Worker processes.", default_shown="one per core")
@click.pass_context
def catalog_check_command(context: click.Context, **_: Any) -> int:
    """Build each entry without memory or weights, and check that its embedding has the declared width.

    \b
    Examples:
      dsmi-zoo catalog check --catalog imagenet-2025 --models 'convnext*'
      dsmi-zoo catalog check --catalog mine.csv
    """
    from ..tools.catalog import check

    chosen, shown = chosen_settings(context), display()
    with shown.never_silent():
        return check(chosen.catalog, chosen.models, chosen.filters, chosen.compute.workers, shown)


@click.command("doctor")
@click.option(
    "--cluster",
    type=click.Choice(CLUSTERS),
    default="local",
    help="Kind of cluster to check.  [default: local]",
)
@options("compute.profile", help="Site settings of Slurm, in TOML; see docs/clusters.md.")
@click.option("--out", type=PATH, help="Directory that a run would write to.")
@options("compute.cache", "subset.data_root")
@click.option(
    "--wait",
    type=TimeType(),
    default="10m",
    help="Time limit for the job on a node.  [default: 10m]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--node", type=PATH, hidden=True, help="Answer the request in this folder.")
@click.pass_context
def doctor_command(
    context: click.Context,
    cluster: str,
    out: Path | None,
    wait: float,
    as_json: bool,
    node: Path | None,
    **_: Any,
) -> int:
    """Check what this machine has for a run and what is missing, and say what to do.

    With --cluster slurm, a job of at most two minutes makes the same checks on a compute node, and checks whether it
    shares the folders, locks hold there, and scheduler and node reach each other. Exits with 1 if there are problems.

    \b
    Examples:
      dsmi-zoo doctor
      dsmi-zoo doctor --cluster cuda --out runs/imagenet --data-root imagenet
      dsmi-zoo doctor --cluster slurm --profile gpu.toml --out runs/imagenet --data-root imagenet --wait 1h
    """
    from ..doctor.command import doctor
    from ..doctor.report import Folders

    chosen = chosen_settings(context)
    root = chosen.subset.data_root
    folders = Folders(
        chosen.compute.cache.expanduser().absolute(),
        None if out is None else out.expanduser().absolute(),
        None if root is None else root.expanduser().absolute(),
    )
    if node is not None:
        from ..doctor.slurm import check_this_node

        check_this_node(node, folders)
        return 0
    shown = display(stderr=as_json)
    with shown.never_silent():
        return doctor(cluster, chosen.compute.profile, folders, wait, as_json, shown)


@click.command("time")
@click.argument("models", nargs=-1, metavar="[MODEL[@SIZE]]...")
@out_option
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where to time; auto takes a GPU if there is one.  [default: auto]",
)
@options("precision", default_shown="the run's")
@click.option(
    "--compile", "compiled", is_flag=True, help="Time each network compiled by torch, too."
)
@click.option("--again", is_flag=True, help="Time again what OUT has times of.")
@click.pass_context
def time_command(
    context: click.Context,
    models: tuple[str, ...],
    out: Path,
    device: Literal["auto", "cpu", "cuda"],
    compiled: bool,
    again: bool,
    **_: Any,
) -> int:
    """Time models of a run on this machine: latency, images per second and memory, one model after the other.

    Without a MODEL, those that are tied for first. Times are kept in OUT/timed, so the same command resumes. Exits with
    1 if a model could not be timed.

    \b
    Examples:
      dsmi-zoo time --out runs/photos
      dsmi-zoo time resnet50.a1_in1k --out runs/photos --device cpu --compile
    """
    shown = display()
    with shown.never_silent():
        from ..tools.timing import time_models

        precision = given_settings(context).get("precision")
        return time_models(
            out, models, device, precision, compiled=compiled, again=again, display=shown
        )


@click.command("convert")
@click.argument("model", metavar="MODEL[@SIZE]")
@out_option
@click.option(
    "--to",
    required=True,
    type=PATH,
    metavar="FILE",
    help="A new file that ends in .onnx, .pt2 or .safetensors.",
)
def convert_command(model: str, out: Path, to: Path) -> int:
    """Convert a model of a run for deployment, with a ridge probe for the run's classes, and prove it.

    The file gives the scores of the classes and the embedding; FILE.json beside it holds the classes, the transform of
    an image, and the proof: its embeddings and predictions on the run's images, beside those of the network and of the
    run. Nothing is written, and the exit code is 1, if they differ.

    \b
    Examples:
      dsmi-zoo convert resnet50.a1_in1k --out runs/photos --to resnet50.onnx
      dsmi-zoo convert resnet50.a1_in1k@224 --out runs/photos --to resnet50.safetensors
    """
    shown = display()
    with shown.never_silent():
        from ..tools.convert import convert

        return convert(out, model, to, shown)
