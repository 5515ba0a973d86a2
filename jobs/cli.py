"""The command ``dsmi-zoo``. Heavy imports stand inside the commands, so that ``--help`` is fast."""

import functools
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..data_catalog.errors import InputError

EPILOG_RUN = """
\b
Examples:
  dsmi-zoo run                                       the digits zoo: 48 models, about 2 minutes
  dsmi-zoo run --models 'test_vit*' 'test_resnet*'   some of them
  dsmi-zoo run --out runs/narrow --sigma 2 --t 3     other settings go to another OUT
  dsmi-zoo run --catalog mine.csv --config run.toml  your own models and settings
  dsmi-zoo run --catalog mine.csv --budget-gb 20     downloaded weights in waves of at most 20 GB
  dsmi-zoo run --catalog imagenet-2025 --dataset imagefolder --data-root photos --budget 1h --max-download 20GB
                                                     the best of 1,266 models for your images, as far as an hour goes
"""

PATH = click.Path(path_type=Path)
PACKAGE = "dsmi_zoo"


class SigmaType(click.ParamType):
    """A positive number, or sqrt(d)."""

    name = "number|sqrt(d)"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Pass ``sqrt(d)`` on, and make anything else a number."""
        return value if value == "sqrt(d)" else click.FLOAT.convert(value, param, ctx)


class TimeType(click.ParamType):
    """A time with its unit, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read what `run` reads: 90s, 45m, 1h30m."""
        from ..pipeline.config import in_seconds

        try:
            return in_seconds(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


def measure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how an embedding is measured."""
    options = (
        click.option("--sigma", type=SigmaType(), help="Width of the Gaussian kernel.  [default: sqrt(d)]"),
        click.option("--t", type=float, help="Diffusion time, the power of the eigenvalues.  [default: 1]"),
        click.option("--repetitions", type=int, help="Random subsets for each class.  [default: 5]"),
        click.option("--seed", type=int, help="Seed of random subsets and null.  [default: 0]"),
        click.option("--bins", type=int, help="Bins of the classic entropy.  [default: 2]"),
        click.option("--null-permutations", type=int, help="Label permutations of the null.  [default: 10]"),
        click.option(
            "--measure",
            "own",
            multiple=True,
            metavar="MODULE:FUNCTION",
            help="A measure of your own, f(Z, labels) -> number; may be repeated.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


FILTER_NAMES = ("kind", "max_params", "max_gmacs", "img_size", "licence", "limit")
SUBSET_NAMES = (
    "dataset", "data_root", "classes", "images_per_class", "repeats", "allow_train_images", "skip_bad_images",
)  # fmt: skip
COMPUTE_NAMES = (
    "cluster", "profile", "workers", "worker_memory", "model_timeout", "share",
    "batch_size", "cache", "cache_gb", "budget_gb", "budget", "max_download",
)  # fmt: skip
MEASURE_NAMES = ("sigma", "t", "repetitions", "seed", "bins", "null_permutations", "own")


def out_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The run directory of a command that works on a finished or interrupted run."""
    return click.option("--out", required=True, type=PATH, help="The run's directory.")(command)


def catalog_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which models; further globs after --models arrive as arguments."""
    options = (
        click.option(
            "--catalog",
            help="digits, imagenet-2023, imagenet-2025, timm-pretrained, or a CSV or Parquet file.  [default: digits]",
        ),
        click.option(
            "--models", multiple=True, metavar="GLOB ...", help="Only models whose name or name@size matches."
        ),
        click.argument("more_models", nargs=-1, metavar=""),
    )
    for option in reversed(options):
        command = option(command)
    return command


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which of the models that --catalog and --models name; an entry of which the value is unknown is left out."""
    options = (
        click.option("--kind", multiple=True, help="convolutional, transformer, hybrid or MLP; may be repeated."),
        click.option("--max-params", type=float, metavar="MILLIONS", help="At most so many million parameters."),
        click.option(
            "--max-gmacs", type=float, metavar="GMACS", help="At most so many billion multiply-adds an image."
        ),
        click.option("--img-size", type=int, metavar="PIXELS", help="Only this image size."),
        click.option("--license", "licence", multiple=True, help="Licence of the weights; may be repeated."),
        click.option("--limit", type=int, metavar="N", help="The first N of what is left."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def cache_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where weights and views are kept."""
    text = "Weights and views.  [default: $DSMI_ZOO_CACHE or ~/.cache/dsmi-zoo]"
    return click.option("--cache", type=PATH, help=text)(command)


def all_globs(models: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    """What follows --models, however it was written."""
    if more and not models:
        raise click.UsageError(f"unexpected argument {more[0]!r}: models are named after --models")
    return (*models, *more)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="dsmi-zoo", prog_name="dsmi-zoo")
@click.option("-v", "--verbose", is_flag=True, help="Also tell what is done within each step, on the workers too.")
def cli(verbose: bool) -> None:
    """Benchmark a model zoo by its representations: diffusion spectral entropy (DSE) and mutual information (DSMI).

    \b
    First steps:
      dsmi-zoo run                         measure the digits zoo, write runs/digits/report/index.html
      dsmi-zoo status --out runs/digits    what is done, failed, missing
      dsmi-zoo measure Z.npy y.npy         measure an embedding of your own
    """
    if verbose:
        logging.getLogger(PACKAGE).setLevel(logging.DEBUG)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where it runs."""
    options = (
        click.option(
            "--cluster",
            help="local, cuda, slurm, tcp://host:port or tls://host:port; see the README.  [default: local]",
        ),
        click.option("--profile", type=PATH, help="Site settings of a cluster, after the examples in jobs/profiles."),
        click.option(
            "--workers",
            type=int,
            help="Workers, one model each at a time.  [default: one a core, a GPU, or the profile's]",
        ),
        click.option(
            "--worker-memory", metavar="SIZE", help="End a local worker beyond this: 16GB.  [default: no limit]"
        ),
        click.option("--model-timeout", metavar="TIME", help="A model that takes longer is ended and fails: 30m, 2h."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@cli.command("run", epilog=EPILOG_RUN)
@catalog_options
@filter_options
@click.option("--out", type=PATH, help="The run's directory.  [default: runs/<catalog>]")
@click.option("--config", "file", type=PATH, help="Settings in TOML; the command line overrides them.")
@click.option("--dataset", help="digits, imagenet, imagefolder, csv or timm:NAME.  [default: digits]")
@click.option("--data-root", type=PATH, help="The folder that the images are in.")
@click.option("--classes", help="all, imagenette+imagewoof, or classes with commas.  [default: all]")
@click.option("--images-per-class", type=int, help="So many images of each class.  [default: all]")
@click.option("--subset-seed", type=int, help="Seed of the choice of images.  [default: 0]")
@click.option("--repeats", type=int, help="Random crops of each image, by the paper's protocol.  [default: 3]")
@click.option("--allow-train-images", is_flag=True, help="Accept ImageNet training images in an imagenet folder.")
@click.option("--skip-bad-images", is_flag=True, help="Go on without images that cannot be decoded.")
@click.option("--protocol", help="standard: each model's own transform; paper: 3 random crops.  [default: standard]")
@click.option("--precision", help="fp32, tf32, bf16 or fp16.  [default: fp32]")
@measure_options
@cluster_options
@click.option("--share", metavar="I/K", help="Only the I-th of K balanced shares, without Dask: one batch job each.")
@click.option("--batch-size", type=int, help="Images in one forward pass.  [default: 64, on a CPU by their size]")
@cache_option
@click.option("--cache-gb", type=float, help="Views beyond this are dropped once no model needs them.  [default: 50]")
@click.option("--budget-gb", type=float, help="Download weights in waves of so many GB, each deleted after its rows.")
@click.option("--budget", metavar="TIME", help="Search for the best models so long: 45m, 1h30m; see the README.")
@click.option("--max-download", metavar="SIZE", help="Leave models out whose weights exceed this in all: 500MB, 20GB.")
@click.option("--drop-embeddings", is_flag=True, help="Do not keep the embeddings (remeasure needs them).")
@click.option("--plan", "only_plan", is_flag=True, help="Say what the run would do, read and store, and stop.")
@click.option("--retry-failed", is_flag=True, help="Try entries again that failed before.")
@click.pass_context
def run_command(context: click.Context, file: Path | None, only_plan: bool, retry_failed: bool, **given: Any) -> int:
    """Measure a zoo: compute every row that OUT lacks, then write the report.

    Finished rows are never computed again; the same command goes on where it was stopped.
    """
    from .run import run

    config = _run_config(context, file, given)
    if config.compute.budget is not None:
        from .search import search

        return search(config, _console(), only_plan=only_plan, retry_failed=retry_failed)
    if only_plan:
        from .forecast import forecast

        return forecast(config, _console())
    return run(config, _console(), retry_failed=retry_failed)


def _run_config(context: click.Context, file: Path | None, given: dict[str, Any]) -> Any:
    """The settings that the options of ``run`` and its file make."""
    from ..pipeline.config import resolve_config

    globs = all_globs(given["models"], given["more_models"])
    given = _given(context, given)
    settings: dict[str, Any] = {
        name: given[name] for name in ("catalog", "protocol", "precision", "out") if name in given
    }
    if globs:
        settings["models"] = globs
    settings["filters"] = {name: given[name] for name in FILTER_NAMES if name in given}
    settings["subset"] = {name: given[name] for name in SUBSET_NAMES if name in given}
    if "subset_seed" in given:
        settings["subset"]["seed"] = given["subset_seed"]
    settings["measures"] = {name: given[name] for name in MEASURE_NAMES if name in given}
    compute: dict[str, Any] = {name: given[name] for name in COMPUTE_NAMES if name in given}
    if given.get("drop_embeddings"):
        compute["keep_embeddings"] = False
    return resolve_config(settings | {"compute": compute}, file)


@cli.group("submit")
def submit_group() -> None:
    """The same run as a batch job, so that nobody has to stay logged in."""


@submit_group.command(
    "slurm",
    context_settings={"ignore_unknown_options": True},
    options_metavar="[--profile FILE] [--array K] [--dry-run] [OPTIONS OF RUN]",
)
@click.option("--profile", type=PATH, help="Site settings, after the examples in jobs/profiles.")
@click.option("--array", type=click.IntRange(min=1), metavar="K", help="K array tasks without Dask, no long driver.")
@click.option("--dry-run", is_flag=True, help="Print the scripts and submit nothing.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
def submit_slurm_command(profile: Path | None, array: int | None, dry_run: bool, arguments: tuple[str, ...]) -> int:
    """Submit to Slurm what `dsmi-zoo run` with these options would do.

    A driver job starts the workers as further jobs, replaces lost ones and writes the report; when its walltime ends it
    asks for another turn. With --array, K jobs each compute a balanced share instead, and one more writes the report.

    \b
    Examples:
      dsmi-zoo submit slurm --profile gpu.toml --catalog imagenet-2025 --dataset imagenet --data-root imagenet --dry-run
      dsmi-zoo submit slurm --profile gpu.toml --catalog imagenet-2025 --dataset imagenet --data-root imagenet
      dsmi-zoo submit slurm --profile gpu.toml --array 20 --catalog imagenet-2025 --workers 1
    """
    from .submit import submit

    with run_command.make_context("dsmi-zoo submit slurm", list(arguments)) as context:
        given = dict(context.params)
        for name in ("cluster", "share", "only_plan"):
            if given[name]:
                raise click.UsageError(f"--{name.removeprefix('only_')} means nothing to submit")
        file = given.pop("file")
        config = _run_config(context, file, given)
    compute = config.compute.model_copy(update={"profile": None if profile is None else profile.absolute()})
    return submit(config.model_copy(update={"compute": compute}), arguments, array, dry_run, _console())


@cli.command("rerun")
@click.argument("models", nargs=-1, required=True, metavar="MODEL[@SIZE] ...")
@out_option
@cluster_options
@click.pass_context
def rerun_command(context: click.Context, models: tuple[str, ...], out: Path, **given: Any) -> int:
    """Redo single entries of a run (MODEL alone: all its sizes) and refresh the report; where the run was computed.

    \b
    Example:
      dsmi-zoo rerun test_resnet.900x5 test_vit.900x5@32 --out runs/digits
    """
    from .run import rerun

    return rerun(out, models, _given(context, given), _console())


@cli.command("remeasure")
@out_option
@click.option("--into", type=PATH, help="Where the new rows go.  [default: beside --out, named after the changes]")
@measure_options
@cluster_options
@click.pass_context
def remeasure_command(context: click.Context, out: Path, into: Path | None, **given: Any) -> int:
    """Other settings or new measures from the kept embeddings of a run, into another directory.

    \b
    Examples:
      dsmi-zoo remeasure --out runs/digits --sigma 2
      dsmi-zoo remeasure --out runs/digits --into runs/mine --measure my_measures:effective_rank
    """
    from .remeasure import remeasure

    given = _given(context, given)
    compute = {name: given.pop(name) for name in COMPUTE_NAMES if name in given}
    return remeasure(out, into, given, compute, _console())


@cli.command("merge")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="A B ...")
@click.option("--out", required=True, type=PATH, help="The joint run's directory; a run that is there counts too.")
def merge_command(runs: tuple[Path, ...], out: Path) -> int:
    """Join runs of one configuration on the same images, and write their report; they themselves stay as they are.

    Of two rows of one entry the finished one is kept, else the newest.

    \b
    Examples:
      dsmi-zoo merge runs/first-half runs/second-half --out runs/whole
      dsmi-zoo merge runs/further --out runs/whole
    """
    from .merge import merge

    return merge(runs, out, _console())


@cli.command("prefetch")
@catalog_options
@cache_option
@click.option("--jobs", type=click.IntRange(1, 64), default=4, help="So many transfers at a time.  [default: 4]")
def prefetch_command(
    catalog: str | None, models: tuple[str, ...], more_models: tuple[str, ...], cache: Path | None, jobs: int
) -> int:
    """Download the weights that a run will need, for nodes without internet; an interrupted transfer goes on.

    \b
    Examples:
      dsmi-zoo prefetch --catalog mine.csv
      dsmi-zoo prefetch --catalog mine.csv --models 'resnet*' --cache shared/cache --jobs 8
    """
    from ..pipeline.config import default_cache
    from .prefetch import prefetch

    globs = all_globs(models, more_models)
    return prefetch(catalog or "digits", globs, (cache or default_cache()).absolute(), jobs, _console())


@cli.command("status")
@out_option
def status_command(out: Path) -> int:
    """What of a run is done, failed (and why) and missing."""
    from .status import status

    return status(out)


@cli.command("report")
@out_option
@click.option("--compare", type=PATH, metavar="OUT", help="Set another run beside this one.")
@click.option(
    "--class-subsets", type=click.IntRange(1, 1000), metavar="N",
    help="Repeat the correlation on N random halves of the classes, from the kept embeddings; 50 tell much.",
)  # fmt: skip
def report_command(out: Path, compare: Path | None, class_subsets: int | None) -> int:
    """Write the report again, from the rows alone.

    \b
    Examples:
      dsmi-zoo report --out runs/digits
      dsmi-zoo report --out runs/digits --compare runs/digits-sigma-2.0
      dsmi-zoo report --out runs/digits --class-subsets 50
    """
    from .report import report

    return report(out, compare, class_subsets or 0, _console())


@cli.command("validate")
@click.option("--out", type=PATH, help="Where all of it goes.  [default: runs/validate]")
@click.option(
    "--study",
    "studies",
    multiple=True,
    type=click.Choice(["simulated", "dynamics", "initialisation"]),
    help="Only this study; may be repeated.  [default: all]",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    help="Train on digits, photos, cifar10, mnist or stl10; more than one to compare.  [default: digits, photos]",
)
@click.option("--data-root", type=PATH, help="The folder of a torchvision data set.")
@click.option("--download", is_flag=True, help="Fetch the data sets into --data-root first.")
@click.option("--seeds", type=click.IntRange(2, 100), help="Trainings of each kind.  [default: 5]")
@click.option("--small", is_flag=True, help="A minute's worth, to try the command; it answers nothing.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one a core]")
@cache_option
def validate_command(
    out: Path | None,
    studies: tuple[str, ...],
    datasets: tuple[str, ...],
    data_root: Path | None,
    download: bool,
    seeds: int | None,
    small: bool,
    workers: int | None,
    cache: Path | None,
) -> int:
    """Check the paper's other claims: simulated data, training dynamics, initialisation.

    Each claim is answered "holds", "does not hold here" or "cannot tell". What is finished is never computed again.

    \b
    Examples:
      dsmi-zoo validate                                    all three studies, about a quarter of an hour on two cores
      dsmi-zoo validate --study simulated                  estimators on data whose truth is known
      dsmi-zoo validate --study dynamics --dataset cifar10 --dataset mnist --data-root data --download --out runs/cifar
    """
    from ..pipeline.config import ComputeSettings, default_cache
    from .validate import STUDIES, Validation, fetch, validate

    compute = ComputeSettings(workers=workers, cache=(cache or default_cache()).absolute())
    root = data_root.expanduser().absolute() if data_root else None
    given = {"datasets": datasets} if datasets else {}
    validation = Validation(
        (out or Path("runs/validate")).absolute(), compute, root=root, small=small, seeds=seeds, **given
    )
    if download:
        fetch(validation)
    return validate(validation, studies or STUDIES, _console())


@cli.command("measure")
@click.argument("embeddings", type=PATH, metavar="EMBEDDINGS.npy")
@click.argument("labels", type=PATH, required=False, metavar="[LABELS.npy]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@measure_options
@click.pass_context
def measure_command(context: click.Context, embeddings: Path, labels: Path | None, as_json: bool, **given: Any) -> int:
    """Measure one embedding, an array [n, d]; with labels, an array [n], also their mutual information.

    \b
    Examples:
      dsmi-zoo measure Z.npy y.npy
      dsmi-zoo measure Z.npy y.npy --sigma 2 --measure my_measures:effective_rank
    """
    from .measure import measure

    return measure(embeddings, labels, _given(context, given), as_json)


@cli.group("catalog")
def catalog_group() -> None:
    """Look at model catalogues."""


@catalog_group.command("list")
@catalog_options
@filter_options
def catalog_list_command(
    catalog: str | None, models: tuple[str, ...], more_models: tuple[str, ...], **filters: Any
) -> int:
    """List a catalogue's entries.

    \b
    Examples:
      dsmi-zoo catalog list --models 'test_vit*'
      dsmi-zoo catalog list --catalog imagenet-2025 --kind transformer --max-gmacs 5 --license mit
    """
    from .catalog import list_entries

    return list_entries(catalog or "digits", all_globs(models, more_models), filters)


@catalog_group.command("show")
@click.argument("model", metavar="MODEL[@SIZE]")
@click.option("--catalog", help="Where to look.  [default: digits, imagenet-2025 and imagenet-2023, in this order]")
def catalog_show_command(model: str, catalog: str | None) -> int:
    """Show all that a catalogue knows of a model (MODEL alone: at all its sizes).

    \b
    Example:
      dsmi-zoo catalog show resnet50.a1_in1k --catalog imagenet-2025
    """
    from .catalog import show

    return show(model, catalog)


@catalog_group.command("check")
@catalog_options
@filter_options
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one a core]")
def catalog_check_command(
    catalog: str | None, models: tuple[str, ...], more_models: tuple[str, ...], workers: int | None, **filters: Any
) -> int:
    """Build each entry without memory or weights, and confirm that it gives an embedding of the declared width.

    \b
    Examples:
      dsmi-zoo catalog check --catalog imagenet-2025 --models 'convnext*'
      dsmi-zoo catalog check --catalog mine.csv
    """
    from .catalog import check

    return check(catalog or "digits", all_globs(models, more_models), filters, workers, _console())


@cli.command("doctor")
@click.option(
    "--cluster", type=click.Choice(["local", "cuda", "slurm"]), default="local",
    help="What is to be used.  [default: local]",
)  # fmt: skip
@click.option("--profile", type=PATH, help="Site settings of Slurm, after the examples in jobs/profiles.")
@click.option("--out", type=PATH, help="The directory that a run is to write to.")
@cache_option
@click.option("--data-root", type=PATH, help="The folder that the images are in.")
@click.option("--wait", type=TimeType(), default="10m", help="Wait so long for the job on a node.  [default: 10m]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--node", type=PATH, hidden=True, help="What the job on a node is to check.")
def doctor_command(
    cluster: str,
    profile: Path | None,
    out: Path | None,
    cache: Path | None,
    data_root: Path | None,
    wait: float,
    as_json: bool,
    node: Path | None,
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
    from ..pipeline.config import default_cache
    from .doctor.findings import Folders

    folders = Folders(
        (cache or default_cache()).expanduser().absolute(),
        None if out is None else out.expanduser().absolute(),
        None if data_root is None else data_root.expanduser().absolute(),
    )
    if node is not None:
        from .doctor.node import check_node

        check_node(node, folders)
        return 0
    from .doctor.command import doctor

    return doctor(cluster, profile, folders, wait, as_json, _console(stderr=as_json))


def _was_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


def _given(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if _was_given(context, name)}


@functools.cache
def _terminal() -> Any:
    from rich.console import Console

    from .progress import Terminal

    return Terminal(Console())


def _console(stderr: bool = False) -> Any:
    """What the log's lines and the bars share, so that a line does not break a bar; stdout, unless that holds JSON."""
    terminal = _terminal()
    terminal.console.stderr = stderr
    return terminal


class _Lines(logging.Handler):
    """Prints what the package logs as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message as it is; what goes wrong meanwhile goes wrong for the command."""
        _terminal().line(record.getMessage())


def main() -> None:
    """Run the command line; what the user got wrong is one line and exit code 2."""
    signal.signal(signal.SIGTERM, _stop_in_order)
    log = logging.getLogger(PACKAGE)
    log.setLevel(logging.INFO)
    log.addHandler(_Lines())
    warnings.showwarning = lambda message, *_where: print(f"dsmi-zoo: {message}", file=sys.stderr)
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        sys.stderr.flush()
        # All is written and closed. Thread pools of native libraries have been seen to abort while Python is torn down,
        # which would turn a finished run into a failed command.
        os._exit(code or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        path = f": {error.ctx.command_path}" if isinstance(error, click.UsageError) and error.ctx else ": dsmi-zoo"
        _fail(f"{' '.join(error.format_message().split()).rstrip('.')}; see{path} --help")
    except (InputError, OSError) as error:
        _fail(" ".join(str(error).split()))
    except (KeyboardInterrupt, click.Abort):
        print("\ndsmi-zoo: stopped; finished rows are kept, and the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _stop_in_order(*_: object) -> None:
    """Batch systems end a job by SIGTERM: stop as for Ctrl-C, once, for they may send it to shell and command alike."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _fail(line: str) -> None:
    print(f"dsmi-zoo: {line}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
