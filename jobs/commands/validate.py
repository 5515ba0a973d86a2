"""``dsmi-zoo validate``."""

from pathlib import Path
from typing import Any

import click

from ...data_catalog.dataset_names import TRAINABLE
from ...pipeline.studies import CLAIMS, STUDIES
from ..options import PATH, chosen_settings, options
from ..terminal import display


@click.command("validate")
@click.option("--out", type=PATH, help="Where all of it goes.  [default: runs/validate]")
@click.option(
    "--study",
    "studies",
    multiple=True,
    type=click.Choice(STUDIES),
    help=f"Only this study; may be repeated.  [default: {', '.join(CLAIMS)}]",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME",
    help=f"Train on {', '.join(TRAINABLE)}; may be repeated, to compare.  [default: digits, photos]",
)
@options("subset.data_root", help="The folder of a torchvision data set.")
@click.option("--download", is_flag=True, help="Fetch the data sets into --data-root first.")
@click.option("--seeds", type=click.IntRange(2, 100), help="Trainings of each kind.  [default: 5]")
@click.option(
    "--small", is_flag=True, help="A minute's worth, to try the command; it answers nothing."
)
@options("compute.workers", help="Worker processes.", default_shown="one per core")
@options("compute.cache")
@click.pass_context
def validate_command(
    context: click.Context,
    out: Path | None,
    studies: tuple[str, ...],
    datasets: tuple[str, ...],
    download: bool,
    seeds: int | None,
    small: bool,
    **_: Any,
) -> int:
    """Check the paper's other claims, by simulated data and trainings, and which score predicts accuracy best.

    Each claim is answered "holds", "does not hold here" or "cannot tell". What is finished is never computed again.

    \b
    Examples:
      dsmi-zoo validate                                    the paper's claims, about a quarter of an hour on two cores
      dsmi-zoo validate --study scores                     480 networks on digits and Fashion-MNIST, about 20 minutes
      dsmi-zoo validate --study simulated                  estimators on data whose truth is known
      dsmi-zoo validate --study dynamics --dataset cifar10 --dataset mnist --data-root data --download --out runs/cifar
    """
    from ..validate import Validation, fetch, validate

    chosen = chosen_settings(context)
    compute = chosen.compute.model_copy(update={"cache": chosen.compute.cache.absolute()})
    root = chosen.subset.data_root.expanduser().absolute() if chosen.subset.data_root else None
    given = {"datasets": datasets} if datasets else {}
    validation = Validation(
        (out or Path("runs/validate")).absolute(),
        compute,
        root=root,
        small=small,
        seeds=seeds,
        **given,
    )
    if download:
        fetch(validation)
    return validate(validation, studies or CLAIMS, display())
