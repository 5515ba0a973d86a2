"""A run where nothing may be downloaded: what it lacks is said once, before it starts, and how to get it."""

import logging
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import flags_of
from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.filters import Filters, apply_filters
from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.pipeline.config.compute import OF_THIS_MACHINE
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.plan import Job, resolve_entries
from dsmi_zoo.pipeline.weights.cache import (
    fetch_weights,
    local_weights,
    remote_weights,
    sound_weights,
)
from dsmi_zoo.pipeline.weights.hub import Stopped, Unreachable, is_offline, is_on_hub, remote_file
from dsmi_zoo.pipeline.weights.waves import asked_at_once

from ..progress import SILENT, Display, duration

log = logging.getLogger(__name__)


def with_weights_here(config: RunConfig, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that can be done here without a download, if HF_HUB_OFFLINE forbids it; all of them otherwise.

    Workers elsewhere may have a cache and an internet of their own; they are not asked.

    Raises
    ------
    InputError
        When none is left.
    """
    if config.compute.cluster not in OF_THIS_MACHINE or config.random_weights:
        return list(jobs)
    needed = {weights for job in jobs if (weights := remote_weights(job.entry)) is not None}
    if not needed or not is_offline():
        return list(jobs)
    lacks = {weights for weights in needed if local_weights(weights, config.compute.cache) is None}
    left = [job for job in jobs if remote_weights(job.entry) not in lacks]
    lacking = len(jobs) - len(left)
    if not lacking:
        return left
    are = "are" if lacking > 1 else "is"
    problem = (
        f"the weights of {counted(lacking, 'model')} {are} not in {config.compute.cache}, and HF_HUB_OFFLINE forbids "
        f"downloading; where there is internet: `{prefetch_command(config)}`, then the same command goes on"
    )
    if not left:
        raise InputError(problem)
    log.warning(f"{problem}; without them until then")
    return left


def prefetch_command(config: RunConfig) -> str:
    """The command that downloads what a run of these settings needs."""
    return shlex.join(["dsmi-zoo", "prefetch", *_options(config)])


def _options(config: RunConfig) -> Iterator[str]:
    flags = flags_of(RunConfig)
    yield from ("--catalog", config.catalog)
    if config.models:
        yield from ("--models", *config.models)
    for name, value in config.filters.model_dump(exclude_defaults=True).items():
        for one in value if isinstance(value, tuple | list) else (value,):
            yield from (flags["filters", name], f"{one:g}" if isinstance(one, float) else str(one))
    yield from ("--cache", str(config.compute.cache))


SPARE_BYTES = 100_000_000
LINE_EVERY_S = 30.0


def prefetch(
    catalog: str,
    patterns: Sequence[str],
    filters: Filters,
    cache: Path,
    transfers: int,
    display: Display = SILENT,
) -> int:
    """Fetch the published weights that the cache lacks of the models that a run of the same options would take.

    ``transfers`` files are fetched at a time.

    Returns
    -------
    int
        The exit code: 0, or 1 when something could not be fetched.

    Raises
    ------
    InputError
        For a wrong catalogue or pattern, or a disk without room for all of it.
    Unreachable
        When the hub gives no answer.
    """
    with display.status("Reading the catalogue"):
        entries = resolve_entries(apply_filters(load_models(catalog, patterns), filters, catalog))
    _tell_skipped(entries)
    needed = dict.fromkeys(
        weights for weights in map(remote_weights, entries) if weights is not None
    )
    if not needed:
        log.info("nothing to download")
        return 0
    cached = _verified(list(needed), cache, transfers, display)
    for weights in cached:
        # From now on it stays, even if a run on a budget had fetched it for itself.
        fetch_weights(weights, cache)
    missing = [weights for weights in needed if weights not in cached]
    with display.status(f"Asking for {counted(len(missing), 'size')}"):
        sizes, failures = _ask_sizes(missing)
    total = sum(size or 0 for size in sizes.values())
    there = sum(path.stat().st_size for path in cached.values())
    log.info(
        f"{counted(len(needed), 'file')}: {len(cached)} in the cache ({size_in_words(there)}), "
        f"{len(sizes)} to download ({size_in_words(total)}{_unknown(sizes)})"
        + (f", {len(failures)} not to be had" if failures else ""),
    )
    _refuse_if_full(cache, total)
    started = monotonic()
    failures |= _fetch_all(sizes, cache, transfers, display)
    fetched = len(missing) - len(failures)
    if fetched:
        log.info(
            f"fetched and verified {counted(fetched, 'file')} in {duration(monotonic() - started)}"
        )
    log.info(f"cache: {cache}")
    if failures:
        log.warning(f"{counted(len(failures), 'failure')}; the same command tries again:")
    for reason in failures.values():
        log.warning(f"  {reason}")
    return 1 if failures else 0


def _tell_skipped(entries: Sequence[ModelEntry]) -> None:
    trained = sum(entry.recipe is not None for entry in entries)
    local = sum(entry.checkpoint is not None for entry in entries)
    without = [entry for entry in entries if entry.checkpoint is None and entry.weights is None]
    as_built = sum(entry.builder is not None for entry in without)
    if trained:
        log.info(f"skipped {counted(trained, 'model')} to be trained")
    if local:
        log.info(f"skipped {counted(local, 'model')} with a checkpoint of their own")
    if as_built:
        log.info(f"skipped {counted(as_built, 'model')} with the weights that their builder makes")


def _verified(
    needed: Sequence[str], cache: Path, at_once: int, display: Display
) -> dict[str, Path]:
    """The files in the cache that are what was fetched; each is read."""
    here = [weights for weights in needed if local_weights(weights, cache) is not None]
    with (
        display.status(f"Verifying {counted(len(here), 'file')}"),
        ThreadPoolExecutor(at_once) as pool,
    ):
        verified = zip(
            here, pool.map(lambda weights: sound_weights(weights, cache), here), strict=True
        )
        return {weights: path for weights, path in verified if path is not None}


def _ask_sizes(missing: Sequence[str]) -> tuple[dict[str, int | None], dict[str, str]]:
    """Bytes of each file (None: unknown), and why others cannot be had."""

    def ask(weights: str, while_waiting: Callable[[], None]) -> int | OSError | None:
        try:
            return remote_file(weights, while_waiting).size
        except OSError as error:
            if isinstance(error, Unreachable) and is_on_hub(weights):
                raise  # the hub is not there: no need to find that out for each of a thousand models
            return error

    answers = dict(zip(missing, asked_at_once(missing, ask), strict=True))
    sizes = {
        weights: answer for weights, answer in answers.items() if not isinstance(answer, OSError)
    }
    return sizes, {
        weights: str(answer) for weights, answer in answers.items() if isinstance(answer, OSError)
    }


def _refuse_if_full(cache: Path, total: int) -> None:
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if total and total + SPARE_BYTES > free:
        raise InputError(
            f"{cache} has {size_in_words(free)} free, and the download needs {size_in_words(total)}; "
            "choose another --cache or fewer --models"
        )


def _fetch_all(
    sizes: Mapping[str, int | None], cache: Path, transfers: int, display: Display
) -> dict[str, str]:
    """Fetch the files and show how far it is; returns why some could not be fetched."""
    stop = threading.Event()
    here = dict.fromkeys(sizes, 0)  # bytes of each file so far
    failures: dict[str, str] = {}

    def fetch(weights: str) -> None:
        def progress(count: int) -> None:
            here[weights] = count
            if stop.is_set():
                raise Stopped

        fetch_weights(weights, cache, progress)

    with (
        _bar_of_bytes(sum(size or 0 for size in sizes.values()), display) as show,
        ThreadPoolExecutor(transfers) as pool,
    ):
        futures = {pool.submit(fetch, weights): weights for weights in sizes}
        left = set(futures)
        try:
            while left:
                done, left = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
                for weights, error in ((futures[future], future.exception()) for future in done):
                    # It will not grow, whatever became of it.
                    here[weights] = sizes[weights] or here[weights]
                    if error is not None:
                        failures[weights] = " ".join(str(error).split()) or type(error).__name__
                        log.warning(f"failed: {failures[weights]}")
                    else:
                        log.log(
                            display.step_level,
                            f"[{len(futures) - len(left)}/{len(futures)}] {weights}",
                        )
                show(sum(here.values()))
        except BaseException:
            stop.set()  # a transfer notices at its next piece; what has arrived stays for the next time
            pool.shutdown(cancel_futures=True)
            raise
    return failures


@contextmanager
def _bar_of_bytes(total: int, display: Display) -> Iterator[Callable[[int], None]]:
    """A bar of bytes on a terminal, now and then a plain line elsewhere."""
    told = monotonic()
    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("about"),
        TimeRemainingColumn(),
    )
    with display.bar(*columns, total=total) as update:

        def show(count: int) -> None:
            nonlocal told
            update(completed=count)
            if monotonic() - told > LINE_EVERY_S:
                told = monotonic()
                log.log(display.step_level, f"{size_in_words(count)} of {size_in_words(total)}")

        yield show


def _unknown(sizes: Mapping[str, int | None]) -> str:
    unknown = sum(size is None for size in sizes.values())
    return f" and {unknown} of unknown size" if unknown else ""
