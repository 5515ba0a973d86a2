"""The end of a run: the report with its thumbnails, which can be rebuilt on demand, the summary and the exit code."""

import json
import logging
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from math import isfinite
from pathlib import Path
from time import monotonic, sleep

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.config.run import SubsetSettings
from dsmi_zoo.pipeline.monitor.file import check_measurements, monitor_path
from dsmi_zoo.pipeline.store.release import is_release, refuse_release
from dsmi_zoo.pipeline.store.run_folder import read_run

from ..progress import Display, duration
from .state import EntryState, by_state, entry_states, how_to_retry

log = logging.getLogger(__name__)

SHOWN = 5
REFRESH = 10  # seconds after which a browser loads the page of a training again
POLL = 2.0  # seconds
OF_RUNS = ("run.json", "stages", "validate.json")  # files of runs and studies
SIDE = 112  # pixels


def conclude(
    out: Path,
    slugs: set[str],
    started: float,
    display: Display,
    *,
    report: bool = True,
    may_be_partial: bool = False,
    added: Sequence[str] = (),
) -> int:
    """Write the report if wanted, log a summary, and return the exit code for the entries ``slugs``.

    Parameters
    ----------
    may_be_partial
        Whether entries without a row are expected, because time was short or they have not been started yet.
    added
        The user's own scores that were added to finished rows; the summary counts their values.
    """
    page = None
    if report:
        with display.status("Writing the report"):
            from dsmi_zoo.reports.page.build import write_report

            page = write_report(out)
    record = read_run(out)
    states, _ = entry_states(out, [entry for entry in record.entries if entry.slug in slugs])
    ok, failed, missing = by_state(states)
    without_row = ""
    if missing:
        without_row = f", {len(missing)} {'not begun' if may_be_partial else 'missing'}"
    what = f"{len(ok)} ok, {len(failed)} failed"
    if added and not failed:
        what = "; ".join(_values_in_words(name, ok) for name in added)
    log.info(
        f"{counted(len(states), 'model')}: {what}{without_row}, in {duration(monotonic() - started)}"
    )
    for state in failed[:SHOWN]:
        log.info(f"  {state.name}: {state.reason}")
    if failed:
        more = f" (and {len(failed) - SHOWN} more)" if len(failed) > SHOWN else ""
        again = "the same run with --retry-failed"
        if record.embeddings_from:
            again = "the same remeasure"
        log.info(
            f"  see them all{more}: dsmi-zoo status --out {out}; {how_to_retry(failed, again)}"
        )
    if page is None:
        log.info(f"Report skipped; write it with: dsmi-zoo report --out {out}")
    else:
        summary = json.loads(page.with_name("summary.json").read_text(encoding="utf-8"))
        log.info(summary["lead"])
        if "finetuned" in summary:
            log.info(summary["finetuned"]["answer"])
        log.info(f"Report: {page}")
        for sentence in summary.get("own_scores", []):
            log.info(sentence)
    if may_be_partial:
        missing = []
    _warn_of_missing(missing)
    return 1 if failed or missing else 0


def _values_in_words(score: str, states: Sequence[EntryState]) -> str:
    values = [(state.row or {}).get(score) for state in states]
    lacking = sum(value is None or not isfinite(value) for value in values)
    if lacking == 0:
        return f"all have a value of {score}"
    return f"{lacking} without a value of {score}, {len(values) - lacking} with one"


def conclude_share(out: Path, share: str, slugs: set[str], started: float) -> int:
    """Log a summary of a share, and return the exit code; the report is written when all shares are done."""
    states, _ = entry_states(out, [entry for entry in read_run(out).entries if entry.slug in slugs])
    ok, failed, missing = by_state(states)
    computed = counted(len(ok) + len(failed), "model")
    log.info(
        f"share {share}: {computed} computed, {len(failed)} failed, in {duration(monotonic() - started)}; "
        f"when all shares are done: dsmi-zoo report --out {out}"
    )
    _warn_of_missing(missing)
    return 1 if failed or missing else 0


def _warn_of_missing(states: Sequence[EntryState]) -> None:
    """Warn of entries whose rows are missing or damaged at the end."""
    for state in states[:SHOWN]:
        log.warning(f"  {state.name} has no row: {state.reason}")
    if states:
        log.warning(
            f"  {counted(len(states), 'row')} missing at the end; the same command computes them"
        )


def report(
    out: Path,
    compared_with: Sequence[Path] = (),
    watch: bool = False,
    thumbnails: bool = False,
) -> int:
    """Rebuild the report of a run, or of a monitored training, and log its path."""
    others = [folder.absolute() for folder in compared_with]
    if watch:
        return _watch(out, others)
    # Wrong folders are refused before the imports, which take seconds.
    if monitor_path(out).exists() and not (out / "run.json").exists():
        if thumbnails:
            raise InputError(f"{out} is a monitored training, whose page shows no images")
        check_measurements(others)
        from dsmi_zoo.reports.page.training import write_monitor_report

        page = write_monitor_report(out.absolute(), others)
    else:
        refuse_release(out)
        for folder in (out, *others):
            if not is_release(folder):
                read_run(folder)
        from dsmi_zoo.reports.page.build import write_report

        make = Thumbnails(read_run(out).config.subset) if thumbnails else None
        page = write_report(out.absolute(), others, make)
        if make is not None and not make.asked:
            log.warning(
                "no thumbnails: only the page of a choice between models lists images to look at, where models differ"
            )
    log.info(f"Report: {page}")
    return 0


def _watch(out: Path, others: Sequence[Path]) -> int:
    """Wait until all trainings have a measurement, then rebuild the report at each new one until all have ended."""
    from dsmi_zoo.reports.page.training import read_trainings, write_monitor_report

    folders = [out.absolute(), *others]
    for folder in folders:
        if folder.is_file() or any((folder / name).exists() for name in OF_RUNS):
            raise InputError(f"{folder} is not a monitored training; leave --watch out")
    before: list[int] = []
    awaited: set[Path] = set()
    while True:
        missing = {folder for folder in folders if not monitor_path(folder).exists()}
        for folder in folders:
            if folder in missing - awaited:
                log.info(f"Waiting for the first measurement in {folder}")
        awaited |= missing
        now = [
            monitor_path(folder).stat().st_mtime_ns for folder in folders if folder not in missing
        ]
        if not missing and now != before:
            has_ended = all(training.has_ended for training in read_trainings(folders))
            page = write_monitor_report(folders[0], others, None if has_ended else REFRESH)
            log.info(f"Report: {page}" if not before or has_ended else "Report: rebuilt")
            if has_ended:
                subject = "All trainings have" if others else "The training has"
                log.info(f"{subject} ended; the page stands")
                return 0
            before = now
        sleep(POLL)


class Thumbnails:
    """Thumbnails of a run's images by name, as data URIs.

    Images that can no longer be read are left out, with a warning. ``asked`` is the number of images asked for so far.

    Raises
    ------
    InputError
        When the images are no longer where the run found them.
    """

    def __init__(self, settings: SubsetSettings) -> None:
        from dsmi_zoo.data_catalog.datasets.registry import open_dataset

        self._images = open_dataset(
            settings.dataset, settings.data_root, allow_train_images=settings.allow_train_images
        )
        self._numbers = {name: number for number, name in enumerate(self._images.names)}
        self.asked = 0

    def __call__(self, names: Sequence[str]) -> dict[str, str]:
        """Return the thumbnails of these images."""
        self.asked += len(names)
        uris = {}
        for name in names:
            try:
                image = self._images.image(self._numbers[name])
            except (KeyError, OSError, ValueError) as error:
                log.warning(
                    f"no thumbnail of {name}: it is no longer there, or unreadable ({error})"
                )
                continue
            image.thumbnail((SIDE, SIDE))
            file = BytesIO()
            image.save(file, "JPEG", quality=80)
            uris[name] = f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
        return uris
