"""``dsmi-zoo measure``."""

from pathlib import Path
from typing import Any

import click

from ..options import PATH, given_settings, options


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

    Files are .npy, .npz, .csv, .parquet, .safetensors or .pt; of one that holds several arrays, FILE:NAME takes one.

    \b
    Examples:
      dsmi-zoo measure Z.npy y.csv
      dsmi-zoo measure embeddings.npz:Z table.csv:species
      dsmi-zoo measure table.csv table.csv:species          that column is left out of the embedding
      dsmi-zoo measure Z.npy y.npy --sigma 2 --measure my_measures:effective_rank
    """
    from ..measure import measure

    return measure(embeddings, labels, given_settings(context).get("measures", {}), as_json)
