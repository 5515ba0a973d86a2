"""``dsmi-zoo run``."""

from pathlib import Path
from typing import Any

import click

from ..options import CLUSTER, PATH, catalog_options, options, run_settings
from ..terminal import display

EPILOG = """
\b
Examples:
  dsmi-zoo run                                       the digits zoo: 48 models, about 2 minutes
  dsmi-zoo run --models 'test_vit*' 'test_resnet*'   some of them
  dsmi-zoo run --out runs/narrow --sigma 2 --t 3     other settings go to another OUT
  dsmi-zoo run --catalog mine.csv --config run.toml  your own models and settings
  dsmi-zoo run --catalog mine.csv --budget-gb 20     downloaded weights in waves of at most 20 GB
  dsmi-zoo run --catalog imagenet-2025 --data-root photos --budget 1h --max-download 20GB
                                                     the best of 1,266 models for your images, as far as an hour goes
"""


@click.command("run", epilog=EPILOG)
@catalog_options
@options("filters", "out")
@click.option(
    "--config", "file", type=PATH, help="Settings in TOML; the command line overrides them."
)
@options("subset", "protocol", "precision", "pool", "random_weights", "measures")
@options(
    *CLUSTER,
    "compute.share",
    "compute.batch_size",
    "compute.compile",
    "compute.cache",
    "compute.cache_gb",
)
@options("compute.budget_gb", "compute.budget", "compute.max_download", "compute.keep_embeddings")
@options("compute.write_report")
@click.option(
    "--plan", "only_plan", is_flag=True, help="Say what the run would do, read and store, and stop."
)
@click.option("--retry-failed", is_flag=True, help="Try entries again that failed before.")
@click.pass_context
def run_command(
    context: click.Context, file: Path | None, only_plan: bool, retry_failed: bool, **_: Any
) -> int:
    """Measure a zoo: compute every row that OUT lacks, then write the report.

    Finished rows are never computed again; the same command goes on where it was stopped.
    """
    from ..run import run

    config = run_settings(context, file)
    if config.compute.budget is not None:
        from ..search import search

        return search(config, display(), only_plan=only_plan, retry_failed=retry_failed)
    if only_plan:
        from ..forecast import forecast

        return forecast(config, display())
    return run(config, display(), retry_failed=retry_failed)
