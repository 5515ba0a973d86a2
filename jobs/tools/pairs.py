"""Probe pairs of a run's models on their kept embeddings: does a second backbone add anything?"""

import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.store.kept import KeptEmbedding, embedding, entry_named
from dsmi_zoo.pipeline.store.pairs import PairHits, write_pairs
from dsmi_zoo.pipeline.store.record import EntryRecord, RunRecord
from dsmi_zoo.pipeline.store.release import refuse_release, rows_and_record

from ..progress import SILENT, Display
from ..terminal import print_line

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

MOST_WORK = 2e12
"""Floating-point operations of all pairs, some minutes of two cores, beyond which only the best models are paired."""


class Kept(NamedTuple):
    """A model of a run with its kept embedding, [n, d]."""

    entry: EntryRecord
    embedding: KeptEmbedding


def pair_models(out: Path, names: Sequence[str], display: Display = SILENT) -> int:
    """Probe all pairs of some models, store which images they recognise, print what a pair gains, rebuild the report.

    Parameters
    ----------
    names
        Models of the run, ``MODEL`` or ``MODEL@SIZE``; none means all, or the best if all pairs would take too long.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    InputError
        When fewer than two models have an embedding, or the images are of one class.
    """
    refuse_release(out)
    rows, record = rows_and_record(out)
    if record.subset.n_classes < 2:
        raise InputError(f"{out} has images of one class, so there is nothing to probe")
    from dsmi_zoo.pipeline.measures.scores.probe import comparable, pair_hits
    from dsmi_zoo.reports.page.build import write_report
    from dsmi_zoo.reports.page.classes import quantity_of
    from dsmi_zoo.reports.page.pairs import pairs_answer, pairs_of

    if names:
        entries = list(
            {one.slug: one for one in (entry_named(record, name, out) for name in names)}.values()
        )
        if len(entries) < 2:
            raise InputError("a pair needs two models: name two or more, or none for all pairs")
        kept = [Kept(one, embedding(out, str(one))) for one in entries]
    else:
        kept = _ranked(out, record, rows)
    if len(kept) < 2:
        raise InputError(
            f"{out} has {counted(len(kept), 'model')} with a kept embedding; a pair needs two"
        )
    labels, images = kept[0].embedding.labels, kept[0].embedding.files
    ready = [comparable(one.embedding.Z) for one in kept]
    places = list(combinations(range(len(kept)), 2))
    pairs = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with display.bar(*columns, total=len(places), description="pairs") as update:
        for i, j in places:
            hits = pair_hits(ready[i], ready[j], labels, images)
            pairs.append(PairHits(kept[i].entry.row_id, kept[j].entry.row_id, hits))
            update(advance=1)
    write_pairs(out, pairs)
    found = pairs_of(rows, quantity_of(rows, record, out), out)
    if found is not None:
        print_line(pairs_answer(found))
    if (out / "report").is_dir():
        with display.status("Writing the report"):
            log.info(f"Report: {write_report(out)}")
    return 0


def _ranked(out: Path, record: RunRecord, rows: "pd.DataFrame") -> list[Kept]:
    """Return the models with a kept embedding, the best first, as many as `MOST_WORK` allows to pair."""
    from dsmi_zoo.pipeline.measures.scores.probe import work_of
    from dsmi_zoo.reports.page.classes import quantity_of
    from dsmi_zoo.reports.statistics.finetuned import ranked_finalists

    entry_of = {one.row_id: one for one in record.entries}
    kept: list[Kept] = []
    without: list[str] = []
    work = 0.0
    ranked = ranked_finalists(rows, quantity_of(rows, record, out))
    for one in ranked:
        entry = entry_of[one.row_id]
        try:
            Z = embedding(out, str(entry))
        except InputError as error:
            log.debug("%s", error)
            without.append(str(entry))
            continue
        n, d = Z.Z.shape
        work += sum(work_of(n, d + other.embedding.Z.shape[1]) for other in kept)
        if work > MOST_WORK and len(kept) >= 2:
            log.info(
                f"pairing the best {len(kept)} of {len(ranked)} models, for more would take too long; "
                "name others: dsmi-zoo pairs MODEL MODEL ..."
            )
            break
        kept.append(Kept(entry, Z))
    if without:
        log.warning(
            f"{counted(len(without), 'model')} without a kept embedding left out, such as {without[0]}"
        )
    return kept
