"""``dsmi-zoo rerun``."""

from pathlib import Path
from typing import Any

import click

from ..options import CLUSTER, given_settings, options, out_option
from ..terminal import display


@click.command("rerun")
@click.argument("models", nargs=-1, required=True, metavar="MODEL[@SIZE] ...")
@out_option
@options(*CLUSTER, default_shown="the run's")
@options("compute.write_report")
@click.pass_context
def rerun_command(context: click.Context, models: tuple[str, ...], out: Path, **_: Any) -> int:
    """Redo single entries of a run (MODEL alone: all its sizes) and refresh the report; where the run was computed.

    \b
    Example:
      dsmi-zoo rerun test_resnet.900x5 test_vit.900x5@32 --out runs/digits
    """
    from ..run import rerun

    return rerun(out, models, given_settings(context).get("compute", {}), display())
