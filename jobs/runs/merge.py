"""Merge several runs of one configuration into another OUT; the runs themselves stay as they are."""

import filecmp
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import link_or_copy
from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.models.filters import Filters
from dsmi_zoo.pipeline.config.run import RunConfig, differences
from dsmi_zoo.pipeline.plan.identity import versions_of_measures
from dsmi_zoo.pipeline.store.embedding_file import embedding_path
from dsmi_zoo.pipeline.store.record import EntryRecord, RunRecord
from dsmi_zoo.pipeline.store.run_folder import NOT_THIS_RUN, input_files, read_run, write_row
from dsmi_zoo.pipeline.store.subset_file import read_subset

from ..progress import SILENT, Display
from .conclude import conclude
from .driver_lock import driver_lock, drivers
from .state import entry_states, make_writable, other_catalogs, save_record

log = logging.getLogger(__name__)

LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Run:
    """A run with its rows by slug; ``left_out`` names the files among its results that are not rows of it, and why."""

    folder: Path
    record: RunRecord
    rows: dict[str, dict[str, Any]]
    left_out: tuple[str, ...]


def merge(folders: Sequence[Path], out: Path, display: Display = SILENT) -> int:
    """Merge runs into ``out``, which counts as one of them if it holds a run already.

    Returns
    -------
    int
        The exit code: 0, or 1 when the kept row of an entry is a failed one.

    Raises
    ------
    InputError
        For runs whose numbers are not comparable (the message names them), or while one of them is being computed.
    """
    started = monotonic()
    out = out.absolute()
    refuse_folders(folders, out)
    with display.status("Reading the runs"):
        sources = [read(folder) for folder in folders]
        refuse_incomparable(sources)
    make_writable(out)
    with driver_lock(out):
        if not (out / "run.json").exists() and any((out / "results").glob("*.parquet")):
            raise InputError(
                f"{out} holds results but no run.json to say what they are; choose another --out"
            )
        earlier = [read(out)] if (out / "run.json").exists() else []
        runs = [*earlier, *sources]
        if earlier:
            refuse_incomparable(runs)
        for line in merge_warnings(sources, runs):
            log.warning(line)
        chosen = best_rows(runs)
        base = runs[0].record
        record = save_record(
            out,
            joint_config([run.record.config for run in runs], out),
            base.catalog,
            base.subset,
            joint_entries(runs, chosen),
            base if earlier else None,
            embeddings_from=base.embeddings_from,
            earlier_catalogs=other_catalogs([run.record for run in runs], base.catalog),
        )
        for run in sources:
            for name in input_files(run.folder):
                if not (out / name).exists():
                    link_or_copy(run.folder / name, out / name)
        with display.status("") as show:
            for number, (slug, run) in enumerate(chosen.items()):
                show(f"Joining rows and embeddings: {number} of {len(chosen)}")
                _copy_entry(slug, run, runs, out)
        for run in runs:
            kept = sum(other is run for other in chosen.values())
            log.info(f"{run.folder}: {counted(len(run.rows), 'row')}, {kept} of them kept")
        slugs = {entry.slug for entry in record.entries}
        return conclude(out, slugs, started, display, may_be_partial=True)


def refuse_folders(folders: Sequence[Path], out: Path) -> None:
    """Raise InputError for what is not a folder, a run that is named twice or being computed, or a single run."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            problem = "is a file, not the folder of a run" if folder.exists() else "is not there"
            raise InputError(f"{folder} {problem}; name folders that `dsmi-zoo run` wrote")
        if folder.resolve() in seen:
            raise InputError(
                f"{seen[folder.resolve()]} and {folder} are the same folder; name each run once"
            )
        if out.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"--out {out} is, or lies in, the run {folder}, which stays as it is; choose another --out"
            )
        for held in drivers(folder).values():
            raise InputError(f"{folder} is being computed by {held}; wait for it, or stop it")
        seen[folder.resolve()] = folder
    if len(folders) < 2 and not (out / "run.json").exists():
        raise InputError(f"{folders[0]} alone is nothing to merge; name two runs or more")


def read(folder: Path) -> Run:
    """Read a run with its rows, or raise InputError."""
    record = read_run(folder)
    states, unreadable = entry_states(folder, record.entries)
    left_out = {problem.path: str(problem) for problem in unreadable}
    of_this_run = {state.slug for state in states if state.reason != NOT_THIS_RUN}
    for path in sorted((folder / "results").glob("[!.]*.parquet")):
        if path.stem not in of_this_run:
            left_out.setdefault(path, f"{path}: {NOT_THIS_RUN}")
    rows = {state.slug: state.row for state in states if state.row is not None}
    return Run(folder, record, rows, tuple(left_out.values()))


def refuse_incomparable(runs: Sequence[Run]) -> None:
    """Raise InputError unless all rows come from one configuration, on the same images, by the same measures."""
    first = runs[0]
    for other in runs[1:]:
        pair = f"{first.folder} and {other.folder}"
        different = list(differences(first.record.identity, other.record.identity))
        if different:
            raise InputError(f"{pair} belong to different configurations: {'; '.join(different)}")
        here, there = first.record.subset.hash, other.record.subset.hash
        if here != there:
            raise InputError(f"{pair} were computed on different images ({here} and {there})")
        origins = first.record.embeddings_from, other.record.embeddings_from
        if origins[0] != origins[1]:
            raise InputError(
                f"{pair} measure embeddings of different runs "
                f"({origins[0] or first.folder} and {origins[1] or other.folder}); "
                "merge the runs that computed the embeddings, then remeasure the result"
            )
    _refuse_other_measures(runs)
    different_entries = []
    for slug in _slugs(runs):
        ids = {run.rows[slug]["row_id"]: run for run in runs if slug in run.rows}
        if len(ids) > 1:
            one, other, *_ = ids.values()
            row = one.rows[slug]
            name = f"{row['model']}@{row['img_size']}"
            different_entries.append(
                f"{name} has other weights or inputs in {one.folder} and {other.folder}"
            )
    if different_entries:
        others = len(different_entries) - 1
        more = f", and {others} more entries" if others else ""
        raise InputError(f"{different_entries[0]}{more}; merge only runs of the same ones")


def _refuse_other_measures(runs: Sequence[Run]) -> None:
    """Raise InputError for rows of different versions of the measures, which settings and columns do not show."""
    first = runs[0].record
    try:
        version_of = versions_of_measures(first.config.measures, first.subset.n_samples)
    except InputError as error:
        log.warning(f"cannot check whether all runs were measured in the same way: {error}")
        return
    folders: dict[int | None, Path] = {}
    for run in runs:
        for row in run.rows.values():
            folders.setdefault(version_of(row), run.folder)
    if len(folders) > 1:
        one, other, *_ = folders.values()
        raise InputError(
            f"rows of {one} and of {other} were computed by different versions of the measures; "
            "the `dsmi-zoo run` of the older one recomputes its rows"
        )


def merge_warnings(sources: Sequence[Run], runs: Sequence[Run]) -> Iterator[str]:
    """Yield lines on what is left out, and on differences between the runs that do not change their identity."""
    for run in sources:
        yield from (f"left out: {problem}" for problem in run.left_out)
        if (run.folder / "stages").exists() or run.record.search:
            yield f"{run.folder}: only the rows on all images of its search on a budget are merged"
    first = runs[0]
    for run in runs[1:]:
        if run.record.catalog.sha256 != first.record.catalog.sha256:
            yield f"{run.folder} and {first.folder} read catalogues of different content; run.json names the latter's"
        if _inputs_differ(first.folder, run.folder):
            yield f"{run.folder} and {first.folder} clustered the inputs differently: compare no dsmi_z_x across them"


def _inputs_differ(one: Path, other: Path) -> bool:
    for name in input_files(other):
        if not (one / name).exists():
            continue
        if name.suffix == ".parquet":
            if not read_subset(one).equals(read_subset(other)):
                return True
        elif not filecmp.cmp(one / name, other / name, shallow=False):
            return True
    return False


def best_rows(runs: Sequence[Run]) -> dict[str, Run]:
    """Return the run whose row of each entry is kept: an ok row before a failed one, then the newest."""
    best: dict[str, Run] = {}
    ranks: dict[str, tuple[bool, datetime]] = {}
    for slug in _slugs(runs):
        for run in runs:
            row = run.rows.get(slug)
            if row is None:
                continue
            rank = (row["status"] == "ok", row["finished_at"] or LONG_AGO)
            if slug not in best or rank > ranks[slug]:
                best[slug], ranks[slug] = run, rank
    return best


def joint_entries(runs: Sequence[Run], chosen: Mapping[str, Run]) -> list[EntryRecord]:
    """Return the entries of all runs, each as listed by the run whose row is kept, or else by the first one."""
    entries: dict[str, EntryRecord] = {}
    for run in runs:
        for entry in run.record.entries:
            if entry.slug not in entries or chosen.get(entry.slug) is run:
                entries[entry.slug] = entry
    return list(entries.values())


def joint_config(configs: Sequence[RunConfig], out: Path) -> RunConfig:
    """Return the first settings, extended to all models that any of the settings chose."""
    first = configs[0]
    models: tuple[str, ...] = ()
    if all(config.models for config in configs):
        models = tuple(dict.fromkeys(glob for config in configs for glob in config.models))
    agree = all(config.filters == first.filters for config in configs)
    filters = first.filters if agree else Filters()
    return first.model_copy(update={"out": out, "models": models, "filters": filters})


def _slugs(runs: Iterable[Run]) -> list[str]:
    return list(dict.fromkeys(entry.slug for run in runs for entry in run.record.entries))


def _copy_entry(slug: str, run: Run, runs: Sequence[Run], out: Path) -> None:
    """Copy the kept row of an entry, after its embedding from whichever run has it."""
    row = run.rows[slug]
    sha256 = row["embedding_sha256"]
    if row["status"] == "ok" and sha256:
        target = embedding_path(out, slug)
        kept = []
        for other in runs:
            path = embedding_path(other.folder, slug)
            if other.rows.get(slug, {}).get("embedding_sha256") == sha256 and path.exists():
                kept.append(path)
        if kept and target not in kept:
            link_or_copy(kept[0], target)
    if run.folder != out:
        write_row(out, slug, row)
