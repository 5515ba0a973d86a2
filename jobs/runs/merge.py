"""Several runs of one configuration as one: their rows and embeddings in another OUT; they themselves stay as is."""

import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_atomically
from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.models.filters import Filters
from dsmi_zoo.pipeline.config.run import RunConfig, differences
from dsmi_zoo.pipeline.plan.identity import versions_of_measures
from dsmi_zoo.pipeline.store.record import EntryRecord, RunRecord
from dsmi_zoo.pipeline.store.run_folder import NOT_THIS_RUN, embedding_path, read_run, write_row
from dsmi_zoo.pipeline.store.subset_file import read_subset

from ..progress import SILENT, Display
from .conclude import conclude
from .driver_lock import driver_lock, drivers
from .state import EntryState, entry_states, make_writable, save_record


def input_files(folder: Path) -> list[Path]:
    """Which files a run has about its images, relative to its folder; a note comes before the file that it is of."""
    clusters = sorted((folder / "input_clusters").glob("*.npy*"), reverse=True)
    inputs = [folder / "subset.parquet", *clusters]
    return [path.relative_to(folder) for path in inputs if path.exists()]


def link_or_copy(source: Path, target: Path) -> None:
    """Let a file appear as ``target``, whole: as a hard link where the file system allows it, else as a copy.

    Files of a run are replaced, never written to, so whatever happens to one of them leaves the other as it is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        os.link(source.resolve(), temporary)
        temporary.replace(target)
    except OSError:
        with source.open("rb") as content:
            write_atomically(target, lambda file: shutil.copyfileobj(content, file))
    finally:
        temporary.unlink(missing_ok=True)  # a rename onto a link to the same file leaves both names


log = logging.getLogger(__name__)

LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Run:
    """A run as its folder holds it; ``left_out`` are the files among its results that are no rows of it, and why."""

    folder: Path
    record: RunRecord
    states: tuple[EntryState, ...]
    left_out: tuple[str, ...]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The entries' rows by slug."""
        return {state.slug: state.row for state in self.states if state.row is not None}


def merge(folders: Sequence[Path], out: Path, display: Display = SILENT) -> int:
    """Join runs into ``out``, which counts as one of them if it holds a run already.

    Returns
    -------
    int
        The exit code: 0, or 1 when the row that was kept of some entry is a failed one.

    Raises
    ------
    InputError
        For runs whose numbers would not mix, by name; while somebody computes in one of them.
    """
    started = monotonic()
    out = out.absolute()
    refuse_unfit(folders, out)
    with display.status("Reading the runs"):
        sources = [read(folder) for folder in folders]
        refuse_what_does_not_mix(sources)
    make_writable(out)
    with driver_lock(out):
        if not (out / "run.json").exists() and any((out / "results").glob("*.parquet")):
            raise InputError(
                f"{out} holds results but no run.json to say what they are; choose another --out"
            )
        earlier = [read(out)] if (out / "run.json").exists() else []
        runs = [*earlier, *sources]
        if earlier:
            refuse_what_does_not_mix(runs)
        for line in remarks(sources, runs):
            log.warning(line)
        chosen = best_rows(runs)
        base = runs[0].record
        config = joint_config([run.record.config for run in runs], out)
        save_record(
            out,
            config,
            base.catalog,
            base.subset,
            joint_entries(runs, chosen),
            base if earlier else None,
            embeddings_from=base.embeddings_from,
        )
        _carry_inputs(sources, out)
        with display.status("") as show:
            for number, (slug, run) in enumerate(chosen.items()):
                show(f"Joining rows and embeddings: {number} of {len(chosen)}")
                _carry_entry(slug, run, runs, out)
        for run in runs:
            taken = sum(other is run for other in chosen.values())
            log.info(f"{run.folder}: {counted(len(run.rows), 'row')}, {taken} of them kept")
        entries = {entry.slug for entry in read_run(out).entries}
        return conclude(out, entries, started, display, may_be_partial=True)


def refuse_unfit(folders: Sequence[Path], out: Path) -> None:
    """Raise InputError for what is no folder, a run that is named twice or being computed, or too few of them."""
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
    """A run with its rows; raises InputError when it is none."""
    record = read_run(folder)
    states, unreadable = entry_states(folder, record.entries)
    known = {state.slug for state in states}
    already_told = {problem.path for problem in unreadable}
    foreign = []
    for path in sorted((folder / "results").glob("[!.]*.parquet")):
        if path.stem not in known and path not in already_told:
            foreign.append(f"{path}: {NOT_THIS_RUN}")
    for state in states:
        if state.reason == NOT_THIS_RUN:
            foreign.append(f"{folder / 'results' / state.slug}.parquet: {state.reason}")
    return Run(folder, record, tuple(states), (*map(str, unreadable), *foreign))


def refuse_what_does_not_mix(runs: Sequence[Run]) -> None:
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
    differ = {}
    for slug in _slugs(runs):
        ids = {run.rows[slug]["row_id"]: run for run in runs if slug in run.rows}
        if len(ids) > 1:
            one, other, *_ = ids.values()
            row = one.rows[slug]
            differ[f"{row['model']}@{row['img_size']}"] = f"{one.folder} and {other.folder}"
    if differ:
        name, folders = next(iter(differ.items()))
        more = f", and {len(differ) - 1} more entries" if len(differ) > 1 else ""
        raise InputError(
            f"{name} has other weights or inputs in {folders}{more}; merge only runs of the same ones"
        )


def _refuse_other_measures(runs: Sequence[Run]) -> None:
    """Settings name a measure, row_id holds its version or source: rows of two versions look alike but do not mix."""
    first = runs[0].record
    try:
        measured_by = versions_of_measures(first.config.measures, first.subset.n_samples)
    except InputError as error:
        log.warning(f"whether all runs mean the same by it cannot be checked: {error}")
        return
    holders: dict[int | None, Path] = {}
    for run in runs:
        for row in run.rows.values():
            holders.setdefault(measured_by(row), run.folder)
    if len(holders) > 1:
        one, other, *_ = holders.values()
        raise InputError(
            f"rows of {one} and of {other} were computed by different versions of the measures; "
            "the `dsmi-zoo run` of the older one computes its rows anew"
        )


def remarks(sources: Sequence[Run], runs: Sequence[Run]) -> Iterable[str]:
    """What is left out, and what the runs do not agree on although it changes no identity."""
    for run in sources:
        yield from (f"left out: {problem}" for problem in run.left_out)
        if (run.folder / "stages").exists() or run.record.search:
            yield f"{run.folder}: how its search on a budget went is not carried, only the rows on all images"
    first = runs[0]
    for run in runs[1:]:
        if run.record.catalog.sha256 != first.record.catalog.sha256:
            yield f"{run.folder} and {first.folder} read catalogues of different content; run.json names the latter's"
        if _inputs_differ(first.folder, run.folder):
            yield f"{run.folder} and {first.folder} clustered the inputs differently: compare no dsmi_z_x across them"


def _inputs_differ(one: Path, other: Path) -> bool:
    return any(
        not _same_inputs(one / name, other / name)
        for name in input_files(other)
        if (one / name).exists()
    )


def _same_inputs(one: Path, other: Path) -> bool:
    if one.suffix in (".npy", ".json"):
        return one.read_bytes() == other.read_bytes()
    return read_subset(one.parent).equals(read_subset(other.parent))


def best_rows(runs: Sequence[Run]) -> dict[str, Run]:
    """For each entry that has a row: the run whose row is kept, an ok one before a failed one, then the newest."""

    def rank(run: Run, slug: str) -> tuple[bool, datetime]:
        row = run.rows[slug]
        return row["status"] == "ok", row["finished_at"] or LONG_AGO

    best: dict[str, Run] = {}
    for slug in _slugs(runs):
        for run in runs:
            if slug in run.rows and (slug not in best or rank(run, slug) > rank(best[slug], slug)):
                best[slug] = run
    return best


def joint_entries(runs: Sequence[Run], chosen: Mapping[str, Run]) -> list[EntryRecord]:
    """The entries of all runs; each as the run lists it whose row is kept, or the first one."""
    entries: dict[str, EntryRecord] = {}
    for run in runs:
        for entry in run.record.entries:
            if entry.slug not in entries or chosen.get(entry.slug) is run:
                entries[entry.slug] = entry
    return list(entries.values())


def joint_config(configs: Sequence[RunConfig], out: Path) -> RunConfig:
    """The first one's settings, for all the models that any of them chose."""
    first = configs[0]
    whole = any(not config.models for config in configs)
    models = (
        () if whole else tuple(dict.fromkeys(glob for config in configs for glob in config.models))
    )
    filters = (
        first.filters if all(config.filters == first.filters for config in configs) else Filters()
    )
    return first.model_copy(update={"out": out, "models": models, "filters": filters})


def _slugs(runs: Iterable[Run]) -> list[str]:
    return list(dict.fromkeys(state.slug for run in runs for state in run.states))


def _carry_inputs(sources: Sequence[Run], out: Path) -> None:
    for run in sources:
        for name in input_files(run.folder):
            if not (out / name).exists():
                link_or_copy(run.folder / name, out / name)


def _carry_entry(slug: str, run: Run, runs: Sequence[Run], out: Path) -> None:
    """The kept row of an entry, after the embedding that it was computed from, whichever run kept that."""
    row = run.rows[slug]
    if row["status"] == "ok" and row["embedding_sha256"]:
        kept = []
        for other in runs:
            path = embedding_path(other.folder, slug)
            its_hash = other.rows.get(slug, {}).get("embedding_sha256")
            if its_hash == row["embedding_sha256"] and path.exists():
                kept.append(path)
        if kept and embedding_path(out, slug) not in kept:
            link_or_copy(kept[0], embedding_path(out, slug))
    if run.folder != out:
        write_row(out, slug, row)
