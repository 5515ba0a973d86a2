"""Look at catalogues: list entries, show one, and check that every one gives an embedding."""

import json
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from time import perf_counter
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.forkserver import process_pool
from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.filters import Filters, apply_filters
from dsmi_zoo.data_catalog.models.registry import find_entries, load_models
from dsmi_zoo.pipeline.engine.outcome import Done

from ..clusters.machine import usable_cores
from ..progress import SILENT, Display, follow
from ..terminal import print_line
from .listing import in_order, said, table

SHOWN_BY_DEFAULT = ("digits", "imagenet-2025", "imagenet-2023")


def choose(catalog: str, globs: Sequence[str], filters: Filters) -> list[ModelEntry]:
    """The entries of a catalogue that match a glob and keep every bound."""
    return apply_filters(load_models(catalog, globs), filters, catalog)


def list_entries(
    catalog: str,
    globs: Sequence[str],
    filters: Filters,
    sort: str | None = None,
    as_json: bool = False,
) -> int:
    """Print a table of entries and their number, or JSON of all that is known of each.

    Parameters
    ----------
    sort
        A key of ``ORDERS``; ``filters.limit`` then takes the first of that order.
    """
    if sort is None:
        entries = choose(catalog, globs, filters)
    else:
        every = choose(catalog, globs, filters.model_copy(update={"limit": None}))
        entries = in_order(every, sort)[: filters.limit]
    if as_json:
        for line in json.dumps([_all_known(entry) for entry in entries], indent=2).splitlines():
            print_line(line)
        return 0
    for line in table(entries):
        print_line(line)
    models = len({entry.model for entry in entries})
    of_models = f" of {counted(models, 'model')}" if models < len(entries) else ""
    print_line(f"{counted(len(entries), 'entry')}{of_models}")
    return 0


def show(model: str, catalog: str | None) -> int:
    """Print everything that is known of a model, at each of its sizes."""
    for number, (where, entry) in enumerate(_looked_up(model, catalog)):
        if number:
            print_line()
        for name, value in {"catalogue": where, **_known(entry)}.items():
            print_line(f"{name:24}{value}")
    return 0


def _looked_up(model: str, catalog: str | None) -> list[tuple[str, ModelEntry]]:
    """The entries of that name in the catalogue, or in the first of the built-in ones that has any."""
    names = (catalog,) if catalog is not None else SHOWN_BY_DEFAULT
    complaint = ""
    for name in names:
        try:
            return [(name, entry) for entry in find_entries(load_models(name), [model], name)]
        except InputError as error:
            if catalog is not None:
                raise
            if "did you mean" in str(error) or not complaint:
                complaint = str(error)
    raise InputError(f"{complaint}; searched: {', '.join(names)} (--catalog names another)")


def _known(entry: ModelEntry) -> dict[str, str]:
    return {name: said(value) for name, value in _all_known(entry).items()}


def _all_known(entry: ModelEntry) -> dict[str, Any]:
    fields = entry.model_dump(mode="json", exclude={"preprocessing", "recipe", "extras"})
    for group in (entry.preprocessing, entry.recipe):
        fields |= group.model_dump(mode="json") if group is not None else {}
    return {
        name: value for name, value in (fields | entry.extras).items() if value not in (None, {})
    }


def check(
    catalog: str,
    globs: Sequence[str],
    filters: Filters,
    workers: int | None,
    display: Display = SILENT,
) -> int:
    """Build every chosen entry on PyTorch's meta device and say which ones give no embedding; 1 if any fails.

    Of an entry with a builder only its module is looked for: its code might download, or do anything else.
    """
    # Imported here: the other commands are faster without it.
    from dsmi_zoo.pipeline.plan.identity import builder_hashes

    chosen = choose(catalog, globs, filters)
    builders = builder_hashes(chosen)
    if builders:
        _tell_unchecked(chosen)
    entries = [entry for entry in chosen if entry.builder is None]
    if not entries:
        return 0
    if workers is None:
        workers = usable_cores()
    good, failed = follow(_checked(entries, workers), len(entries), display)
    for done in sorted(failed, key=lambda done: done.name):
        print_line(f"{done.name}: {done.message}")
    print_line(
        f"{good} of {counted(len(entries), 'entry')} with an embedding of the declared width; {len(failed)} failed",
    )
    return 1 if failed else 0


def _tell_unchecked(entries: Sequence[ModelEntry]) -> None:
    for entry in entries:
        if entry.builder is not None:
            print_line(
                f"{entry.model}: built by {entry.builder}, whose module is there; not checked"
            )


def _checked(entries: Sequence[ModelEntry], workers: int) -> Iterator[Done]:
    """What is found about each entry, as it is found; entries with the same network and size are built once."""
    same: dict[str, list[ModelEntry]] = {}
    for entry in entries:
        network = f"{entry.architecture} {entry.img_size} {entry.model_kwargs} {entry.layer}"
        same.setdefault(network, []).append(entry)
    count = min(workers, len(same))
    pool = process_pool(count, _start_worker)
    try:
        futures = {pool.submit(_problem, group[0]): group for group in same.values()}
        for future in as_completed(futures):
            try:
                problem, seconds = future.result()
            except BrokenProcessPool:
                problem, seconds = "the process that was to build it died (out of memory?)", 0.0
            for entry in futures[future]:
                yield Done(entry.slug, str(entry), not problem, problem, seconds)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of what timm's own code does on the meta device


def _problem(entry: ModelEntry) -> tuple[str, float]:
    """Why an entry gives no embedding ("" if it does), and the seconds that it took to find out."""
    from dsmi_zoo.pipeline.networks.timm import embedding_shape

    started = perf_counter()
    try:
        shape, width = embedding_shape(entry)
        is_right = shape == (1, width) or width is None
        problem = (
            "" if is_right else f"the embedding of an image has shape {shape}, not (1, {width})"
        )
    except Exception as error:
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return problem, perf_counter() - started
