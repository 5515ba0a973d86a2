"""Commands that compute: run, rerun, remeasure, submit, prefetch, merge and validate."""

from pathlib import Path
from typing import Any

import click

from dsmi_zoo.data_catalog.datasets.names import TRAINABLE
from dsmi_zoo.pipeline.studies import CLAIMS, STUDIES

from ..terminal import display
from .options import (
    CLUSTER,
    PATH,
    GroupedHelp,
    catalog_options,
    chosen_settings,
    given_settings,
    options,
    out_option,
    run_settings,
)

EPILOG = """
\b
Examples:
  dsmi-zoo run                                       the digits zoo: 48 models, about 2 minutes
  dsmi-zoo run --models 'test_vit*' 'test_resnet*'   some of them
  dsmi-zoo run --out runs/narrow --sigma 2 --t 3     other settings go to another OUT
  dsmi-zoo run --catalog mine.csv --config run.toml  your own models and settings
  dsmi-zoo run --models 'test_*' --layers blocks     a row for each block, from one forward pass
  dsmi-zoo run --catalog mine.csv --budget-gb 20     downloaded weights in waves of at most 20 GB
  dsmi-zoo run --catalog imagenet-2025 --data-root photos --budget 1h --max-download 20GB
                                                     the best of 1,266 models for your images, as far as an hour goes
  dsmi-zoo run --catalog mine.csv --data-root photos --finetune 3
                                                     then fine-tune the three best, and say which one wins
"""


@click.command("run", cls=GroupedHelp, epilog=EPILOG)
@catalog_options
@options("filters", "out")
@click.option(
    "--config", "file", type=PATH, help="Settings in TOML; the command line overrides them."
)
@options("subset", "protocol", "precision", "pool", "random_weights", "layers", "measures")
@options(
    *CLUSTER,
    "compute.share",
    "compute.batch_size",
    "compute.compile",
    "compute.cache",
    "compute.cache_gb",
)
@options("metric", "compute.budget_gb", "compute.budget", "compute.max_download")
@options("compute.finetune", "compute.keep_checkpoints")
@options("compute.keep_embeddings")
@options("compute.write_report")
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Print what the run would do, read and store, and stop.",
)
@click.option("--retry-failed", is_flag=True, help="Retry entries that failed before.")
@click.pass_context
def run_command(
    context: click.Context, file: Path | None, only_plan: bool, retry_failed: bool, **_: Any
) -> int:
    """Measure a zoo: compute every row that OUT lacks, then write the report.

    Finished rows are never recomputed; the same command resumes where it was stopped.
    """
    config = run_settings(context, file)
    shown = display()
    # Before the imports, which take a second.
    with shown.never_silent("Reading catalogue and images"):
        if config.compute.budget is not None:
            from ..runs.search import search

            return search(config, shown, only_plan=only_plan, retry_failed=retry_failed)
        if only_plan:
            from ..runs.forecast import forecast

            return forecast(config, shown, retry_failed=retry_failed)
        from ..runs.run import run

        return run(config, shown, retry_failed=retry_failed)


@click.command("rerun")
@click.argument("models", nargs=-1, required=True, metavar="MODEL[@SIZE] ...")
@out_option
@options(*CLUSTER, default_shown="the run's")
@options("compute.write_report")
@click.pass_context
def rerun_command(context: click.Context, models: tuple[str, ...], out: Path, **_: Any) -> int:
    """Recompute single entries of a run (MODEL alone: all its sizes) where it was computed, and its report.

    \b
    Example:
      dsmi-zoo rerun test_resnet.900x5 test_vit.900x5@32 --out runs/digits
    """
    shown = display()
    with shown.never_silent("Reading catalogue and images"):
        from ..runs.run import rerun

        return rerun(out, models, given_settings(context).get("compute", {}), shown)


@click.command("finetune")
@click.argument("folder", required=False, type=PATH, metavar="[OUT]")
@click.option("--out", type=PATH, help="The run's directory.")
@click.option(
    "--top",
    type=click.IntRange(1, 1000),
    default=3,
    metavar="N",
    help="How many of the best models.  [default: 3]",
)
@options("compute.keep_checkpoints")
@options(*CLUSTER, default_shown="the run's")
@options("compute.write_report")
@click.pass_context
def finetune_command(
    context: click.Context, folder: Path | None, out: Path | None, top: int, **_: Any
) -> int:
    """Fine-tune the best models of a run and the one that a static ranker would choose, and say which one wins.

    Each is trained by one recipe on parts of the run's images and tested on the others; see docs/choose.md. The same
    command resumes where it was stopped, and repeats nothing.

    \b
    Examples:
      dsmi-zoo finetune --out runs/photos --top 3
      dsmi-zoo finetune --out runs/photos --top 1 --keep-checkpoints
    """
    chosen = out or folder
    if chosen is None or (folder is not None and out is not None):
        raise click.UsageError("name the run's directory once: --out OUT", context)
    given, shown = given_settings(context).get("compute", {}), display()
    with shown.never_silent("Reading the run"):
        from ..runs.finetune import finetune

        return finetune(chosen, top, given, shown)


@click.command("remeasure")
@out_option
@click.option(
    "--into",
    type=PATH,
    help="Directory of the new rows.  [default: beside --out, named after the changes]",
)
@options("measures", *CLUSTER, default_shown="the run's")
@options("compute.write_report")
@click.pass_context
def remeasure_command(context: click.Context, out: Path, into: Path | None, **_: Any) -> int:
    """Recompute measures from stored embeddings: other settings into a new directory.

    With --measure alone, the new columns are added to the rows of --out, and nothing else is computed again.

    \b
    Examples:
      dsmi-zoo remeasure --out runs/digits --measure my_measures:effective_rank
      dsmi-zoo remeasure --out runs/digits --sigma 2
    """
    given, shown = given_settings(context), display()
    measures, compute = given.get("measures", {}), given.get("compute", {})
    with shown.never_silent("Reading the run"):
        if into is None and set(measures) == {"own"}:
            from ..runs.remeasure import add_own_scores

            return add_own_scores(out, measures["own"], compute, shown)
        from ..runs.remeasure import remeasure

        return remeasure(out, into, measures, compute, shown)


@click.group("submit")
def submit_group() -> None:
    """Submit a run as a batch job, so that nobody has to stay logged in."""


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
    is requeued. With --array, K jobs each compute a balanced share instead, and one more writes the report.

    \b
    Examples:
      dsmi-zoo submit slurm --profile gpu.toml --catalog imagenet-2025 --dataset imagenet --data-root imagenet --dry-run
      dsmi-zoo submit slurm --profile gpu.toml --catalog imagenet-2025 --dataset imagenet --data-root imagenet
      dsmi-zoo submit slurm --profile gpu.toml --array 20 --catalog imagenet-2025 --workers 1
    """
    from ..runs.submit import submit

    with run_command.make_context("dsmi-zoo submit slurm", list(arguments)) as context:
        for name in ("cluster", "share", "only_plan"):
            if context.params[name]:
                raise click.UsageError(f"--{name.removeprefix('only_')} means nothing to submit")
        config = run_settings(context, context.params["file"])
    compute = config.compute.model_copy(update={"profile": profile})
    return submit(
        config.model_copy(update={"compute": compute}), arguments, array, dry_run, display()
    )


@click.command("prefetch")
@catalog_options
@options("filters")
@options("compute.cache")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    help="Number of downloads at a time.  [default: 4]",
)
@click.pass_context
def prefetch_command(context: click.Context, jobs: int, **_: Any) -> int:
    """Download the weights that a run will need, for nodes without internet; interrupted transfers resume.

    \b
    Examples:
      dsmi-zoo prefetch --catalog mine.csv
      dsmi-zoo prefetch --catalog imagenet-2025 --max-gmacs 2 --license apache-2.0
      dsmi-zoo prefetch --catalog mine.csv --models 'resnet*' --cache shared/cache --jobs 8
    """
    from ..runs.prefetch import prefetch

    chosen, shown = chosen_settings(context), display()
    cache = chosen.compute.cache.absolute()
    with shown.never_silent():
        return prefetch(chosen.catalog, chosen.models, chosen.filters, cache, jobs, shown)


@click.command("merge")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="A B ...")
@click.option(
    "--out",
    required=True,
    type=PATH,
    help="Directory of the joint run; a run that it holds already is included.",
)
def merge_command(runs: tuple[Path, ...], out: Path) -> int:
    """Join runs of one configuration on the same images into a new one, and write its report.

    Of two rows of one entry, a successful one is kept, or else the newest.

    \b
    Examples:
      dsmi-zoo merge runs/first-half runs/second-half --out runs/whole
      dsmi-zoo merge runs/further --out runs/whole
    """
    from ..runs.merge import merge

    shown = display()
    with shown.never_silent():
        return merge(runs, out, shown)


@click.command("validate")
@click.option("--out", type=PATH, help="Directory of the results.  [default: runs/validate]")
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
@click.option("--download", is_flag=True, help="Download the data sets into --data-root first.")
@click.option("--seeds", type=click.IntRange(2, 100), help="Trainings of each kind.  [default: 5]")
@click.option(
    "--first-seed",
    type=click.IntRange(1, 10**6),
    default=1,
    help="First seed of scores and replications.  [default: 1]",
)
@click.option(
    "--small",
    is_flag=True,
    help="A test of the command that answers nothing: a minute, or ten with the studies of zoos.",
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
    first_seed: int,
    small: bool,
    **_: Any,
) -> int:
    """Check the paper's other claims, which score predicts accuracy best, and claims of others about scores.

    Each claim is answered "holds", "does not hold here" or "cannot tell". Finished parts are never recomputed.

    \b
    Examples:
      dsmi-zoo validate                                    the paper's claims, about a quarter of an hour on two cores
      dsmi-zoo validate --study scores                     480 networks on digits and Fashion-MNIST, about an hour
      dsmi-zoo validate --study replications               five claims of others, on the same networks
      dsmi-zoo validate --study simulated                  estimators on data whose truth is known
      dsmi-zoo validate --study dynamics --dataset cifar10 --dataset mnist --data-root data --download --out runs/cifar
    """
    from ..tools.validate import Validation, fetch, validate

    chosen = chosen_settings(context)
    compute = chosen.compute.model_copy(update={"cache": chosen.compute.cache.absolute()})
    root = chosen.subset.data_root.expanduser().absolute() if chosen.subset.data_root else None
    given: dict[str, Any] = {"datasets": datasets} if datasets else {}
    validation = Validation(
        (out or Path("runs/validate")).absolute(),
        compute,
        root=root,
        small=small,
        seeds=seeds,
        first_seed=first_seed,
        **given,
    )
    shown = display()
    with shown.never_silent():
        if download:
            fetch(validation)
        return validate(validation, studies or CLAIMS, shown)
