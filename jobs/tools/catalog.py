"""List catalogues, show an entry, and check that every entry gives an embedding.

``--help`` imports this module for `ORDERS`, so heavy modules are imported inside functions.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from dsmi_zoo._util.errors import InputError, error_line
from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.filters import Filters, apply_filters
from dsmi_zoo.data_catalog.models.registry import find_entries, load_models

from ..terminal import print_line

if TYPE_CHECKING:
    from dsmi_zoo.pipeline.plan.job import Outcome

    from ..progress import Display

SHOWN_BY_DEFAULT = ("digits", "imagenet-2025", "imagenet-2023")

COLUMNS: dict[str, Callable[[ModelEntry], Any]] = {
    "model": lambda entry: entry.model,
    "pixels": lambda entry: entry.img_size,
    "kind": lambda entry: entry.kind,
    "network": lambda entry: (
        entry.builder or (entry.architecture if entry.architecture != entry.model else None)
    ),
    "params (M)": lambda entry: entry.params_m,
    "GMACs": lambda entry: entry.extras.get("gmacs"),
    "images/s": lambda entry: entry.extras.get("throughput"),
    "top-1 (%)": lambda entry: entry.top1,
}
ORDERS = {
    "model": "model",
    "size": "pixels",
    "params": "params (M)",
    "gmacs": "GMACs",
    "throughput": "images/s",
    "top1": "top-1 (%)",
}
GREATEST_FIRST = ("throughput", "top1")


def choose(catalog: str, globs: Sequence[str], filters: Filters) -> list[ModelEntry]:
    """Return the entries of a catalogue that match a glob and pass the filters."""
    return apply_filters(load_models(catalog, globs), filters, catalog)


def list_entries(
    catalog: str,
    globs: Sequence[str],
    filters: Filters,
    sort: str | None = None,
    as_json: bool = False,
) -> int:
    """Print a table of entries and their number, or JSON of everything known about each.

    Parameters
    ----------
    sort
        A key of ``ORDERS``; ``filters.limit`` then takes the first entries in that order.
    """
    if sort is None:
        entries = choose(catalog, globs, filters)
    else:
        every = choose(catalog, globs, filters.model_copy(update={"limit": None}))
        entries = in_order(every, sort)[: filters.limit]
    if as_json:
        for line in json.dumps([_facts(entry) for entry in entries], indent=2).splitlines():
            print_line(line)
        return 0
    for line in table(entries):
        print_line(line)
    models = len({entry.model for entry in entries})
    of_models = f" of {counted(models, 'model')}" if models < len(entries) else ""
    print_line(f"{counted(len(entries), 'entry')}{of_models}")
    return 0


def in_order(entries: Sequence[ModelEntry], order: str) -> list[ModelEntry]:
    """Sort by a key of ``ORDERS``, the greatest accuracy or throughput first; unknown values come last."""

    def key(entry: ModelEntry) -> tuple[bool, Any]:
        value = COLUMNS[ORDERS[order]](entry)
        if value is not None and order in GREATEST_FIRST:
            value = -value
        return value is None, "" if value is None else value

    return sorted(entries, key=key)


def table(entries: Sequence[ModelEntry]) -> Iterator[str]:
    """Yield the lines of a table with a head, without columns that are empty."""
    columns = []
    for title, value_of in COLUMNS.items():
        values = [value_of(entry) for entry in entries]
        if all(value is None for value in values):
            continue
        cells = [title, *("-" if value is None else in_words(value) for value in values)]
        width = max(map(len, cells))
        if any(isinstance(value, str) for value in values):
            columns.append([cell.ljust(width) for cell in cells])
        else:
            columns.append([cell.rjust(width) for cell in cells])
    for row in zip(*columns, strict=True):
        yield "  ".join(row).rstrip()


def in_words(value: object) -> str:
    """Format a value for display."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e5 else f"{value:.0f}"
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def show(model: str, catalog: str | None) -> int:
    """Print everything that is known about a model, at each of its sizes."""
    where, entries = _find(model, catalog)
    for number, entry in enumerate(entries):
        if number:
            print_line()
        for name, value in {"catalogue": where, **_facts(entry)}.items():
            print_line(f"{name:24}{in_words(value)}")
    return 0


def _find(model: str, catalog: str | None) -> tuple[str, list[ModelEntry]]:
    """Return the entries of that name in the catalogue, or in the first built-in one that has any."""
    if catalog is not None:
        return catalog, find_entries(load_models(catalog), [model], catalog)
    complaint = ""
    for name in SHOWN_BY_DEFAULT:
        try:
            return name, find_entries(load_models(name), [model], name)
        except InputError as error:
            if "did you mean" in str(error) or not complaint:
                complaint = str(error)
    searched = ", ".join(SHOWN_BY_DEFAULT)
    raise InputError(f"{complaint}; searched: {searched} (--catalog names another)")


def _facts(entry: ModelEntry) -> dict[str, Any]:
    facts = entry.model_dump(mode="json", exclude={"preprocessing", "recipe", "extras"})
    for group in (entry.preprocessing, entry.recipe):
        facts |= group.model_dump(mode="json") if group is not None else {}
    return {
        name: value for name, value in (facts | entry.extras).items() if value not in (None, {})
    }


def check(
    catalog: str,
    globs: Sequence[str],
    filters: Filters,
    workers: int | None,
    display: "Display",
) -> int:
    """Build every chosen entry on PyTorch's meta device and print which ones give no embedding; return 1 if any.

    Builders are not called, because their code might download files or do anything else; only their modules must exist.
    """
    from dsmi_zoo.pipeline.plan.identity import builder_hashes

    from ..clusters.machine import usable_cores
    from ..progress import follow

    chosen = choose(catalog, globs, filters)
    builder_hashes(chosen)
    entries = []
    for entry in chosen:
        if entry.builder is None:
            entries.append(entry)
        else:
            print_line(
                f"{entry.model}: built by {entry.builder}, whose module is there; not checked"
            )
    if not entries:
        return 0
    checked = _checked(entries, workers or usable_cores())
    good, failed = follow(checked, len(entries), display)
    for done in sorted(failed, key=lambda done: done.name):
        print_line(f"{done.name}: {done.message}")
    print_line(
        f"{good} of {counted(len(entries), 'entry')} with an embedding of the declared width; {len(failed)} failed"
    )
    return 1 if failed else 0


def _checked(entries: Sequence[ModelEntry], workers: int) -> "Iterator[Outcome]":
    """Yield the outcome of each entry; entries with the same network and size are built once."""
    from concurrent.futures import as_completed
    from concurrent.futures.process import BrokenProcessPool

    from dsmi_zoo._util.forkserver import process_pool
    from dsmi_zoo.pipeline.config.compute import MODELS
    from dsmi_zoo.pipeline.plan.job import Outcome

    same: dict[str, list[ModelEntry]] = {}
    for entry in entries:
        network = f"{entry.architecture} {entry.img_size} {entry.model_kwargs} {entry.layer}"
        same.setdefault(network, []).append(entry)
    pool = process_pool(min(workers, len(same)), MODELS, _start_worker)
    try:
        futures = {pool.submit(_problem, group[0]): group for group in same.values()}
        for future in as_completed(futures):
            try:
                problem, seconds = future.result()
            except BrokenProcessPool:
                problem, seconds = "the process that was to build it died (out of memory?)", 0.0
            for entry in futures[future]:
                yield Outcome(entry.slug, str(entry), not problem, problem, seconds)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # timm's own code warns on the meta device


def _problem(entry: ModelEntry) -> tuple[str, float]:
    """Return why an entry gives no embedding ("" if it does), and the seconds that it took."""
    from dsmi_zoo.pipeline.networks.timm import embedding_shape

    started = perf_counter()
    problem = ""
    try:
        shape, width = embedding_shape(entry)
        if width is not None and shape != (1, width):
            problem = f"the embedding of an image has shape {shape}, not (1, {width})"
    except Exception as error:
        problem = error_line(error)
    return problem, perf_counter() - started
