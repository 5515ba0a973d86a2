"""Fine-tune the best models of a finished run, and report which one wins."""

from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.store.release import refuse_release
from dsmi_zoo.pipeline.store.run_folder import read_run

from ..progress import SILENT, Display
from .conclude import conclude
from .driver_lock import driver_lock
from .finalists import fine_tune_best
from .run import with_compute_changes
from .state import entry_states, make_writable, refuse_remeasured


def finetune(out: Path, top: int, compute: Mapping[str, Any], display: Display = SILENT) -> int:
    """Fine-tune the ``top`` models of a finished run and the choice of the static ranker, and write the report.

    Finished fine-tunings are not repeated.

    Parameters
    ----------
    compute
        Fields of ``ComputeSettings`` that override the run's.

    Returns
    -------
    int
        The exit code: 0, or 1 when a fine-tuning failed.
    """
    refuse_release(out)
    record = read_run(out)
    refuse_remeasured(out, record)
    if record.config.random_weights:
        raise InputError(f"{out} is a dry run with random weights, which chooses no model")
    config = with_compute_changes(record.config, dict(compute) | {"finetune": top})
    config = config.model_copy(update={"out": out.absolute()})
    make_writable(config.folder)
    started = monotonic()
    with driver_lock(config.folder) as confirm_lock:
        failed = fine_tune_best(config, display, confirm_lock)
        states, _ = entry_states(config.folder, record.entries)
        slugs = {state.slug for state in states if state.state == "ok"}
        code = conclude(config.folder, slugs, started, display, report=config.compute.write_report)
    return 1 if failed else code
