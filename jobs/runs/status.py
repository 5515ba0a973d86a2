"""The output of ``dsmi-zoo status``: which entries of a run are done, failed and missing, and why."""

from collections.abc import Iterator
from pathlib import Path

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.monitor.file import monitor_path, read_monitor
from dsmi_zoo.pipeline.store.record import RunRecord, catalogs_in_words
from dsmi_zoo.pipeline.store.run_folder import read_run

from ..terminal import print_line
from .driver_lock import WHOLE, drivers
from .state import SHOWN, by_state, entry_states, how_to_retry


def status(out: Path) -> int:
    """Print what is done, failed (and why) and missing; return exit code 1 when an entry failed."""
    if monitor_path(out).exists() and not (out / "run.json").exists():
        return _of_monitor(out)
    begun = sorted((out / "stages").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if begun and not (out / "run.json").exists():
        print_line(
            f"{out}: an unfinished search on a budget, at its latest stage; the same run goes on from there"
        )
        out = begun[-1].parent
    record = read_run(out)
    states, unreadable = entry_states(out, record.entries)
    ok, failed, missing = by_state(states)
    print_line(
        f"{out}: catalogue {catalogs_in_words(record)}, {counted(len(states), 'model')}: "
        f"{len(ok)} ok, {len(failed)} failed, {len(missing)} missing",
    )
    for name, held in drivers(out).items():
        print_line(f"  being computed{'' if name == WHOLE else f' ({name})'} by {held}")
    for state in failed:
        print_line(f"  failed: {state.name}: {state.reason}")
    for state in missing[:SHOWN]:
        print_line(f"  missing: {state.name}: {state.reason}")
    if len(missing) > SHOWN:
        print_line(f"  missing: {len(missing) - SHOWN} more")
    for line in _of_finetuned(out, record):
        print_line(line)
    known = {state.slug for state in states}
    for problem in unreadable:
        if problem.path.suffix != ".parquet" or problem.path.stem not in known:
            print_line(f"  not a row: {problem}")
    if missing:
        print_line("compute what is missing: the same `dsmi-zoo run` again")
    if failed:
        again = (
            "the same remeasure" if record.embeddings_from else f"dsmi-zoo rerun MODEL --out {out}"
        )
        print_line(how_to_retry(failed, again))
    return 1 if failed else 0


def _of_finetuned(out: Path, record: RunRecord) -> Iterator[str]:
    """Yield the lines on fine-tuned models, if any."""
    if not (out / "finetuned").is_dir():
        return
    from dsmi_zoo.pipeline.store.finetuned import read_finetuned_row

    found = {entry: read_finetuned_row(out, entry.slug) for entry in record.entries}
    rows = {entry: row for entry, row in found.items() if row is not None}
    failed = {entry: row for entry, row in rows.items() if row["status"] != "ok"}
    yield f"  fine-tuned: {len(rows) - len(failed)} ok, {len(failed)} failed"
    for entry, row in failed.items():
        yield f"  fine-tuning failed: {entry}: {row['error_type']}: {row['error_message']}"


def _of_monitor(out: Path) -> int:
    rows, facts = read_monitor(out)
    last = rows.iloc[-1]
    print_line(
        f"{out}: a monitored training, {counted(len(rows), 'measurement')} of {int(last['n_samples'])} images up to "
        f"step {int(last['step'])}, every {facts['every']} steps"
    )
    print_line(f"draw its curves: dsmi-zoo report --out {out}")
    return 0
