"""``dsmi-zoo doctor``."""

from pathlib import Path
from typing import Any

import click

from ...pipeline.config import CLUSTERS
from ..options import PATH, TimeType, chosen_settings, options
from ..terminal import display


@click.command("doctor")
@click.option(
    "--cluster",
    type=click.Choice(CLUSTERS),
    default="local",
    help="What is to be used.  [default: local]",
)
@options("compute.profile", help="Site settings of Slurm, in TOML; see docs/clusters.md.")
@click.option("--out", type=PATH, help="The directory that a run is to write to.")
@options("compute.cache", "subset.data_root")
@click.option(
    "--wait",
    type=TimeType(),
    default="10m",
    help="Wait so long for the job on a node.  [default: 10m]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--node", type=PATH, hidden=True, help="What the job on a node is to check.")
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
    """Say what this machine has for a run and what is missing, each finding with what to do.

    With --cluster slurm, a job of at most two minutes looks at the same from a compute node, at whether the folders are
    shared and locks hold there, and at the route between scheduler and node. The exit code is 1 if there are problems.

    \b
    Examples:
      dsmi-zoo doctor
      dsmi-zoo doctor --cluster cuda --out runs/imagenet --data-root imagenet
      dsmi-zoo doctor --cluster slurm --profile gpu.toml --out runs/imagenet --data-root imagenet --wait 1h
    """
    from ..doctor.findings import Folders

    chosen = chosen_settings(context)
    root = chosen.subset.data_root
    folders = Folders(
        chosen.compute.cache.expanduser().absolute(),
        None if out is None else out.expanduser().absolute(),
        None if root is None else root.expanduser().absolute(),
    )
    if node is not None:
        from ..doctor.node import check_node

        check_node(node, folders)
        return 0
    from ..doctor.command import doctor

    return doctor(cluster, chosen.compute.profile, folders, wait, as_json, display(stderr=as_json))
