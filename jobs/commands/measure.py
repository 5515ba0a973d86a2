"""``dsmi-zoo measure``."""

from pathlib import Path
from typing import Any

import click

from ..options import PATH, given_settings, options


@click.command("measure")
@click.argument("embeddings", type=PATH, metavar="EMBEDDINGS.npy")
@click.argument("labels", type=PATH, required=False, metavar="[LABELS.npy]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options("measures")
@click.pass_context
def measure_command(context: click.Context, embeddings: Path, labels: Path | None, as_json: bool, **_: Any) -> int:
    """Measure one embedding, an array [n, d]; with labels, an array [n], also their mutual information.

    \b
    Examples:
      dsmi-zoo measure Z.npy y.npy
      dsmi-zoo measure Z.npy y.npy --sigma 2 --measure my_measures:effective_rank
    """
    from ..measure import measure

    return measure(embeddings, labels, given_settings(context).get("measures", {}), as_json)
