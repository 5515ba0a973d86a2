"""``dsmi-zoo submit``."""

from pathlib import Path

import click

from ..options import options, run_settings
from ..terminal import display
from .run import run_command


@click.group("submit")
def submit_group() -> None:
    """The same run as a batch job, so that nobody has to stay logged in."""


@submit_group.command(
    "slurm",
    context_settings={"ignore_unknown_options": True},
    options_metavar="[--profile FILE] [--array K] [--dry-run] [OPTIONS OF RUN]",
)
@options("compute.profile", help="Site settings, in TOML; see docs/clusters.md.")
@click.option(
    "--array",
    type=click.IntRange(min=1),
    metavar="K",
    help="K array tasks, each a share; no long driver.",
)
@click.option("--dry-run", is_flag=True, help="Print the scripts and submit nothing.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
def submit_slurm_command(
    profile: Path | None, array: int | None, dry_run: bool, arguments: tuple[str, ...]
) -> int:
    """Submit to Slurm what `dsmi-zoo run` with these options would do.

    A driver job starts the workers as further jobs, replaces lost ones and writes the report; when its walltime ends it
    asks for another turn. With --array, K jobs each compute a balanced share instead, and one more writes the report.

    \b
    Examples:
      dsmi-zoo submit slurm --profile gpu.toml --catalog imagenet-2025 --dataset imagenet --data-root imagenet --dry-run
      dsmi-zoo submit slurm --profile gpu.toml --catalog imagenet-2025 --dataset imagenet --data-root imagenet
      dsmi-zoo submit slurm --profile gpu.toml --array 20 --catalog imagenet-2025 --workers 1
    """
    from ..submit import submit

    with run_command.make_context("dsmi-zoo submit slurm", list(arguments)) as context:
        for name in ("cluster", "share", "only_plan"):
            if context.params[name]:
                raise click.UsageError(f"--{name.removeprefix('only_')} means nothing to submit")
        config = run_settings(context, context.params["file"])
    compute = config.compute.model_copy(update={"profile": profile})
    return submit(
        config.model_copy(update={"compute": compute}), arguments, array, dry_run, display()
    )
