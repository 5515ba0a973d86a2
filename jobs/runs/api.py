"""The Python interface to runs: the command's settings as keywords, its rows as a data frame."""

from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import signature_with
from dsmi_zoo.pipeline.config.run import SETTINGS, settings_from_keywords
from dsmi_zoo.pipeline.store.run_folder import read_results

from ..progress import notebook_display, show_answer
from .run import run as run_all
from .search import search

if TYPE_CHECKING:
    from distributed import Client


GUARD = (
    'call dsmi_zoo.run under `if __name__ == "__main__":`, because its workers import the script'
)
WORKER_SETTINGS = ("cluster", "profile", "workers", "worker_memory", "per_gpu")


@signature_with(SETTINGS.values())
def run(
    catalog: str | Path | None = None,
    *,
    out: str | Path | None = None,
    client: "Client | None" = None,
    retry_failed: bool = False,
    **settings: Any,
) -> pd.DataFrame:
    """Measure a zoo: compute every row that ``out`` lacks, write the report there, and return the rows.

    Finished rows are never recomputed. In a Jupyter notebook a bar shows progress, and the answer and a link to the
    report follow; elsewhere nothing is printed, and the loggers below ``dsmi_zoo`` report progress. In a script, call
    it under ``if __name__ == "__main__":``, because its workers are processes that import the script.

    Parameters
    ----------
    catalog : str or Path, optional
        A built-in catalogue's name, as `dsmi-zoo run --help` lists them, or a CSV or Parquet file; by default
        ``digits``. It is required with your own images (``data_root``).
    out : str or Path, optional
        The run's directory; by default ``runs/<catalog>``.
    client : distributed.Client, optional
        A client of a cluster whose workers see ``out``; it stays open, and takes the place of ``cluster=``. By default
        workers are started on this machine.
    retry_failed : bool
        Retry entries that failed before.
    **settings
        The other options of ``dsmi-zoo run``, with ``_`` for ``-``: ``data_root="photos"``, ``max_params=30``,
        ``measure="mine:f"``, ``workers=2``, ``budget="1h"``.

    Returns
    -------
    pandas.DataFrame
        All rows of ``out``, one per entry, as `read_results` returns them; a failed row says why it failed.

    Raises
    ------
    InputError
        When the settings, the catalogue or the images are wrong; a subclass of ValueError with a one-line message.
    OSError
        When the disk is full or the workers are lost; finished rows stay, and the same call resumes from there.
    """
    # Set while a spawned child imports the caller's script again, which would start workers endlessly.
    if getattr(current_process(), "_inheriting", False):
        raise InputError(GUARD)
    if client is not None:
        _refuse_beside_client(client, settings)
    config = settings_from_keywords(catalog, out, **settings)
    if config.compute.share is not None:
        raise InputError("share is for batch jobs of the command; leave it out")
    run_or_search = search if config.compute.budget is not None else run_all
    display = notebook_display()
    try:
        run_or_search(config, display, retry_failed=retry_failed, client=client)
    except BrokenProcessPool:
        raise InputError(f"the process that asks timm ended at once: {GUARD}") from None
    except (RuntimeError, OSError) as error:
        if "failed to start" not in str(error):  # Dask's message; its classes are too general
            raise
        raise InputError(
            f"{error} Workers import the script that calls: it must be a file, and {GUARD}."
        ) from None
    if config.compute.write_report:
        show_answer(config.folder, display)
    return read_results(config.folder)


def _refuse_beside_client(client: object, settings: Mapping[str, Any]) -> None:
    """Refuse an invalid client, and settings of workers that would not be started."""
    from distributed import Client

    if not isinstance(client, Client):
        raise InputError(f"client is a {type(client).__name__}; pass a distributed.Client")
    if client.status != "running":
        raise InputError(f"the client is {client.status}; pass one that is connected")
    for name in WORKER_SETTINGS:
        if settings.get(name) is not None:
            raise InputError(
                f"{name} is for workers that the run starts itself; with a client, leave it out"
            )
