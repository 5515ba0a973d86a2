"""The entries of ``--layers``: one for each layer, beside the network's own entry, all from one forward pass.

A network's layers are known only once it is built, and the driver never loads torch. So another process builds
each network on torch's meta device, where nothing is computed, and the names are kept in the cache.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

from dsmi_zoo._util.errors import InputError, error_line
from dsmi_zoo._util.files import content_hash, write_json
from dsmi_zoo._util.forkserver import process_pool
from dsmi_zoo._util.text import counted, shown
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from ..config.compute import MODELS
from ..config.run import ALL, BLOCKS
from .job import Job

log = logging.getLogger(__name__)

NAMES_VERSION = 1  # increase it when networks/layers.py finds other names
MANY = 20  # from this number of networks on, building them is announced
Names = Mapping[str, Sequence[str]]
"""Names of layers under ``blocks``, ``all`` and ``modules``."""
Listed = Names | str
"""The layers of a network, or why they cannot be listed."""


def layer_entries(
    jobs: Sequence[Job], wanted: Sequence[str], cache: Path, timeout: float | None = None
) -> dict[str, list[ModelEntry]]:
    """Return the entries to add after each job's entry, by its slug, except layers that the catalogue lists itself.

    Parameters
    ----------
    wanted
        ``all``, ``blocks``, or names and patterns of layers.
    timeout
        Seconds that a builder's code may take.

    Raises
    ------
    InputError
        For a layer that no network has; when no network has blocks.
    """
    networks: dict[str, list[Job]] = {}
    for job in jobs:
        networks.setdefault(job.network, []).append(job)
    first = {key: min(some, key=_is_of_a_layer) for key, some in networks.items()}
    names = dict(zip(first, _names_of(list(first.values()), cache, timeout), strict=True))
    problems = {first[key].name: of for key, of in names.items() if isinstance(of, str)}
    known = {key: of for key, of in names.items() if not isinstance(of, str)}
    if not known:
        model, reason = next(iter(problems.items()))
        raise InputError(f"--layers: the layers of {model} cannot be listed: {reason}")
    for model, reason in problems.items():
        log.warning(f"--layers: the layers of {model} cannot be listed: {reason}")
    _refuse_unknown(wanted, {first[key].name: of for key, of in known.items()})
    added: dict[str, list[ModelEntry]] = {}
    for key, of in known.items():
        entry = first[key].entry
        there = {job.entry.layer for job in networks[key]}
        added[entry.slug] = [
            entry.at_layer(layer) for layer in _chosen(wanted, of) if layer not in there
        ]
    return added


def _is_of_a_layer(job: Job) -> bool:
    return job.entry.layer is not None


def _chosen(wanted: Sequence[str], names: Names) -> list[str]:
    """Return the layers of a network that are wanted, in the order of a forward pass."""
    if wanted[0] in (ALL, BLOCKS):
        return list(names[wanted[0]])
    return [name for name in names["modules"] if any(fnmatchcase(name, one) for one in wanted)]


def _refuse_unknown(wanted: Sequence[str], names: Mapping[str, Names]) -> None:
    """Raise InputError for a layer that no network has, and log how many lack one that others have."""
    if wanted[0] in (ALL, BLOCKS):
        without = [model for model, of in names.items() if not of[wanted[0]]]
        if len(without) == len(names):
            some = ", ".join(next(iter(names.values()))["modules"][:4])
            raise InputError(
                f"--layers {wanted[0]}: {without[0]} has no repeated blocks; name layers, such as {some}"
            )
        if without:
            log.warning(_lacking(without, len(names), "repeated blocks"))
        return
    for one in wanted:
        without = [
            model
            for model, of in names.items()
            if not any(fnmatchcase(name, one) for name in of["modules"])
        ]
        if len(without) == len(names):
            near = get_close_matches(one, names[without[0]]["modules"], n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(near)}?" if near else "--layers blocks names them all"
            raise InputError(f"--layers: {without[0]} has no layer {shown(one)}; {hint}")
        if without:
            log.warning(_lacking(without, len(names), f"layer {shown(one)}"))


def _lacking(without: Sequence[str], of: int, what: str) -> str:
    have = "has" if len(without) == 1 else "have"
    networks = f"{len(without)} of {counted(of, 'network')}"
    return f"--layers: {networks} {have} no {what}, such as {without[0]}"


def _names_of(jobs: Sequence[Job], cache: Path, timeout: float | None) -> list[Listed]:
    """Return the layers of each job's network, from the cache if it is timm's and was built before."""
    notes = [_note(job, cache) for job in jobs]
    found: dict[Path, Listed] = {
        note: names for note in notes if (names := _read(note)) is not None
    }
    lacking = {note: job for note, job in zip(notes, jobs, strict=True) if note not in found}
    if len(lacking) >= MANY:
        log.info(f"building {len(lacking)} networks without weights to list their layers")
    found |= _built(lacking, timeout)
    for note, job in lacking.items():
        if job.entry.builder is None and not isinstance(found[note], str):
            write_json(note, found[note])
    return [found[note] for note in notes]


def _note(job: Job, cache: Path) -> Path:
    entry = job.entry
    of_network = entry.architecture, entry.model_kwargs, entry.img_size, entry.builder
    digest = content_hash(NAMES_VERSION, version("timm"), *of_network, job.builder_sha256)
    return cache / "layers" / f"{digest}.json"


def _read(note: Path) -> Names | None:
    try:
        names = json.loads(note.read_text(encoding="utf-8"))
        is_whole = all(isinstance(names[kind], list) for kind in (BLOCKS, ALL, "modules"))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return names if is_whole else None


def _built(jobs: Mapping[Path, Job], timeout: float | None) -> dict[Path, Listed]:
    """Build networks in other processes, each user's builder in its own, because its code may end the process."""
    found: dict[Path, Listed] = {}
    of_timm = {note: job for note, job in jobs.items() if job.entry.builder is None}
    if of_timm:
        with process_pool(min(len(of_timm), os.cpu_count() or 1), MODELS) as pool:
            asked = {note: pool.submit(_ask, job) for note, job in of_timm.items()}
            found |= {note: _answer(one, None) for note, one in asked.items()}
    for note in jobs.keys() - of_timm.keys():
        pool = process_pool(1, MODELS)
        try:
            found[note] = _answer(pool.submit(_ask, jobs[note]), timeout)
        finally:
            _end(pool._processes.values() if pool._processes else ())
            pool.shutdown(wait=False)
    return found


def _end(processes: Iterable[object]) -> None:
    """Kill processes that may never end."""
    for process in processes:
        process.kill()  # type: ignore[attr-defined]


def _answer(asked: "Future[Listed]", timeout: float | None) -> Listed:
    try:
        return asked.result(timeout)
    except BrokenProcessPool:
        return "its process died"
    except TimeoutError:
        return f"it takes longer than --model-timeout {timeout:g} s"


def _ask(job: Job) -> Listed:
    """Build a network without weights, and list its layers; runs in a process that has torch."""
    import warnings

    import torch

    from ..networks.custom import build
    from ..networks.layers import layer_names
    from ..networks.timm import build_untrained

    entry, size = job.entry, job.entry.img_size
    assert size is not None
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm's own code warns on the meta device
            if entry.builder is None:
                with torch.device("meta"):
                    names = layer_names(build_untrained(entry), torch.zeros(1, 3, size, size))
            else:
                network = build(entry, job.builder_sha256, None).model
                names = layer_names(network, torch.zeros(1, 3, size, size))
    except Exception as error:
        return error_line(error)
    return {BLOCKS: list(names.blocks), ALL: list(names.steps), "modules": list(names.modules)}
