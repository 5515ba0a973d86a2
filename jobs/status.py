"""How far a run is."""

from pathlib import Path

from ..data_catalog.words import counted
from ..pipeline.monitor_file import monitor_path, read_monitor
from ..pipeline.store import read_run
from .driving import WHOLE, drivers
from .folder import by_state, entry_states
from .terminal import tell

SHOWN = 50  # missing entries; a run of a thousand has just begun


def status(out: Path) -> int:
    """Say what is done, failed (and why) and missing; the exit code is 1 when an entry failed."""
    if monitor_path(out).exists() and not (out / "run.json").exists():
        return _of_monitor(out)
    begun = sorted((out / "stages").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if begun and not (out / "run.json").exists():
        tell(
            f"{out}: an unfinished search on a budget, its latest stage; the same run goes on from there"
        )
        out = begun[-1].parent
    record = read_run(out)
    states, unreadable = entry_states(out, record.entries)
    ok, failed, missing = by_state(states)
    tell(
        f"{out}: catalogue {record.catalog.name}, {counted(len(states), 'model')}: "
        f"{len(ok)} ok, {len(failed)} failed, {len(missing)} missing",
    )
    for name, held in drivers(out).items():
        tell(f"  being computed{'' if name == WHOLE else f' ({name})'} by {held}")
    for state in failed:
        tell(f"  failed: {state.name}: {state.reason}")
    for state in missing[:SHOWN]:
        tell(f"  missing: {state.name}: {state.reason}")
    if len(missing) > SHOWN:
        tell(f"  missing: {len(missing) - SHOWN} more")
    known = {state.slug for state in states}
    for problem in unreadable:
        if problem.path.suffix != ".parquet" or problem.path.stem not in known:
            tell(f"  not a row: {problem}")
    if missing:
        tell("compute what is missing: the same `dsmi-zoo run` again")
    if failed:
        again = (
            "the same remeasure" if record.embeddings_from else f"dsmi-zoo rerun MODEL --out {out}"
        )
        tell(f"try failed ones again: {again}")
    return 1 if failed else 0


def _of_monitor(out: Path) -> int:
    rows, facts = read_monitor(out)
    last = rows.iloc[-1]
    tell(
        f"{out}: a monitored training, {counted(len(rows), 'measurement')} of {int(last['n_samples'])} images up to "
        f"step {int(last['step'])}, every {facts['every']} steps"
    )
    tell(f"draw its curves: dsmi-zoo report --out {out}")
    return 0
