"""Download the weights that runs will need."""

import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
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
from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.filters import Filters, apply_filters
from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.pipeline.plan.plan import resolve_entries
from dsmi_zoo.pipeline.weights.cache import (
    fetch_weights,
    local_weights,
    remote_weights,
    sound_weights,
)
from dsmi_zoo.pipeline.weights.hub import Stopped, Unreachable, is_on_hub, remote_file
from dsmi_zoo.pipeline.weights.waves import asked_at_once

from ..progress import SILENT, Display, duration

log = logging.getLogger(__name__)

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
    """Fetch the published weights that a run with the same options would need and the cache lacks.

    ``transfers`` files are fetched at a time.

    Returns
    -------
    int
        The exit code: 0, or 1 when something could not be fetched.

    Raises
    ------
    InputError
        For a wrong catalogue or pattern, or a disk without enough space.
    Unreachable
        When the hub does not answer.
    """
    with display.status("Reading the catalogue"):
        entries = resolve_entries(apply_filters(load_models(catalog, patterns), filters, catalog))
    _log_skipped(entries)
    needed = dict.fromkeys(weights for entry in entries if (weights := remote_weights(entry)))
    if not needed:
        log.info("nothing to download")
        return 0
    cached = _verified(list(needed), cache, transfers, display)
    for weights in cached:
        fetch_weights(weights, cache)  # keeps what a run with --budget-gb would delete
    missing = [weights for weights in needed if weights not in cached]
    with display.status(f"Asking for {counted(len(missing), 'size')}"):
        sizes, failures = _ask_sizes(missing)
    total = sum(size or 0 for size in sizes.values())
    in_cache = size_in_words(sum(path.stat().st_size for path in cached.values()))
    unknown = sum(size is None for size in sizes.values())
    more = f" and {unknown} of unknown size" if unknown else ""
    unavailable = f", {len(failures)} unavailable" if failures else ""
    log.info(
        f"{counted(len(needed), 'file')}: {len(cached)} in the cache ({in_cache}), "
        f"{len(sizes)} to download ({size_in_words(total)}{more}){unavailable}"
    )
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if total and total + SPARE_BYTES > free:
        raise InputError(
            f"{cache} has {size_in_words(free)} free, and the download needs {size_in_words(total)}; "
            "choose another --cache or fewer --models"
        )
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


def _log_skipped(entries: Sequence[ModelEntry]) -> None:
    without_file = [e for e in entries if e.checkpoint is None and e.weights is None]
    skipped = {
        "to be trained": sum(entry.recipe is not None for entry in entries),
        "with a checkpoint of their own": sum(entry.checkpoint is not None for entry in entries),
        "with the weights that their builder makes": sum(
            entry.builder is not None for entry in without_file
        ),
    }
    for which, count in skipped.items():
        if count:
            log.info(f"skipped {counted(count, 'model')} {which}")


def _verified(
    needed: Sequence[str], cache: Path, at_once: int, display: Display
) -> dict[str, Path]:
    """Read the files in the cache, and return those that are undamaged."""
    here = [weights for weights in needed if local_weights(weights, cache) is not None]
    with (
        display.status(f"Verifying {counted(len(here), 'file')}"),
        ThreadPoolExecutor(at_once) as pool,
    ):
        paths = pool.map(lambda weights: sound_weights(weights, cache), here)
        verified = zip(here, paths, strict=True)
        return {weights: path for weights, path in verified if path is not None}


def _ask_sizes(missing: Sequence[str]) -> tuple[dict[str, int | None], dict[str, str]]:
    """Return the bytes of each file (None: unknown), and why others are unavailable."""

    def ask(weights: str, while_waiting: Callable[[], None]) -> int | OSError | None:
        try:
            return remote_file(weights, while_waiting).size
        except OSError as error:
            if isinstance(error, Unreachable) and is_on_hub(weights):
                raise  # without asking for each of a thousand models
            return error

    sizes: dict[str, int | None] = {}
    failures = {}
    for weights, answer in zip(missing, asked_at_once(missing, ask), strict=True):
        if isinstance(answer, OSError):
            failures[weights] = str(answer)
        else:
            sizes[weights] = answer
    return sizes, failures


def _fetch_all(
    sizes: Mapping[str, int | None], cache: Path, transfers: int, display: Display
) -> dict[str, str]:
    """Fetch the files and show progress; return the reason for each file that could not be fetched."""
    stop = threading.Event()
    received = dict.fromkeys(sizes, 0)  # bytes of each file
    failures: dict[str, str] = {}

    def fetch(weights: str) -> None:
        def progress(count: int) -> None:
            received[weights] = count
            if stop.is_set():
                raise Stopped

        fetch_weights(weights, cache, progress)

    total = sum(size or 0 for size in sizes.values())
    next_line = monotonic() + LINE_EVERY_S
    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("about"),
        TimeRemainingColumn(),
    )
    with display.bar(*columns, total=total) as update, ThreadPoolExecutor(transfers) as pool:
        futures = {pool.submit(fetch, weights): weights for weights in sizes}
        left = set(futures)
        try:
            while left:
                done, left = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    weights, error = futures[future], future.exception()
                    received[weights] = sizes[weights] or received[weights]
                    if error is not None:
                        failures[weights] = " ".join(str(error).split()) or type(error).__name__
                        log.warning(f"failed: {failures[weights]}")
                    else:
                        number = len(futures) - len(left)
                        log.log(display.step_level, f"[{number}/{len(futures)}] {weights}")
                bytes_so_far = sum(received.values())
                update(completed=bytes_so_far)
                if monotonic() > next_line:
                    next_line = monotonic() + LINE_EVERY_S
                    line = f"{size_in_words(bytes_so_far)} of {size_in_words(total)}"
                    log.log(display.step_level, line)
        except BaseException:
            stop.set()  # transfers stop at their next chunk; a later call resumes them
            pool.shutdown(cancel_futures=True)
            raise
    return failures
