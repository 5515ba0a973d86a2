"""Model catalogues: those that are built in, those of a file, and single entries of them."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.renamed import CURRENT
from dsmi_zoo._util.text import shown

from .csv_catalog import read_catalog
from .entry import ModelEntry
from .trained_zoos import TRAINED_ZOOS, seeded_zoo, trained_models

TABLES = Path(__file__).parents[1] / "tables"
DEFAULT_MODELS = TABLES / "default-models.csv"


def load_models(catalog: str | Path, patterns: str | Sequence[str] = ()) -> list[ModelEntry]:
    """The entries of a catalogue, in its order.

    Parameters
    ----------
    catalog
        The name of a built-in catalogue (a key of ``BUILT_IN``), one of ``digits:SEED`` and ``fashion:SEED``, or the
        path of a CSV or Parquet file.
    patterns
        Keep entries whose ``model`` or ``model@size`` matches one of these shell patterns (a string is one); none
        keeps all. The name of one of timm's networks, ``resnet18``, is the model of its default tag.

    Raises
    ------
    InputError
        For an unknown catalogue, a wrong value (with its line), duplicates, or a pattern that matches nothing.
    """
    built_in = _built_in(str(catalog))
    entries = built_in() if built_in else _from_file(Path(catalog))
    return select(entries, (patterns,) if isinstance(patterns, str) else patterns, str(catalog))


def catalog_sha256(catalog: str | Path) -> str:
    """Hash of a catalogue: of its file, or of a built-in one's entries."""
    if _built_in(str(catalog)):
        lines = [_as_first_written(entry) for entry in load_models(catalog)]
        content = "\n".join(lines).encode()
    else:
        content = Path(catalog).read_bytes()
    return hashlib.sha256(content).hexdigest()


def _as_first_written(entry: ModelEntry) -> str:
    """An entry in JSON as the first versions had it, so that the hash stays what it is in the OUTs that are there."""
    text = entry.model_dump_json(exclude={"builder", "layer"})  # which they did not have
    for former, current in CURRENT.items():
        text = text.replace(f'"{current}":', f'"{former}":')
    return text


def select(entries: Iterable[ModelEntry], patterns: Sequence[str], where: str) -> list[ModelEntry]:
    """The entries that match any pattern; each pattern must match something."""
    entries = list(entries)
    if not patterns:
        return entries
    chosen: dict[str, bool] = {}
    for pattern in patterns:
        hits = [e for e in entries if fnmatchcase(e.model, pattern) or fnmatchcase(str(e), pattern)]
        hits = hits or _meant_by_timm(entries, pattern)
        if not hits:
            near = get_close_matches(pattern, [e.model for e in entries], n=1)
            hint = f"did you mean {near[0]}?" if near else f"for example: {entries[0].model}"
            raise InputError(f"no model of {where} matches {shown(pattern)}; {hint}")
        chosen.update(dict.fromkeys(map(str, hits), True))
    return [e for e in entries if str(e) in chosen]


def find_entries(
    entries: Sequence[ModelEntry], names: Iterable[str], where: str
) -> list[ModelEntry]:
    """The entries that ``MODEL`` (all sizes) or ``MODEL@SIZE`` names, exactly."""
    chosen: dict[str, ModelEntry] = {}
    for name in names:
        hits = [e for e in entries if e.model == name] or [e for e in entries if str(e) == name]
        hits = hits or _meant_by_timm(entries, name)
        if not hits:
            near = get_close_matches(name, [e.model for e in entries], n=1)
            raise InputError(
                f"{where} has no model {shown(name)}"
                + (f"; did you mean {near[0]}?" if near else "")
            )
        chosen.update({str(e): e for e in hits})
    return list(chosen.values())


def _meant_by_timm(entries: Iterable[ModelEntry], name: str) -> list[ModelEntry]:
    """The entries of the model that timm makes by this name of a network, ``resnet18`` or ``resnet18@288``."""
    network, _, size = name.partition("@")
    model = default_models().get(network)
    return [e for e in entries if e.model == model and size in ("", str(e.img_size))]


@cache
def default_models() -> dict[str, str]:
    """timm's model by each network's name alone, that of its default tag: a table, as asking timm takes seconds."""
    with DEFAULT_MODELS.open(encoding="utf-8", newline="") as file:
        return {row["network"]: row["model"] for row in csv.DictReader(file)}


def _built_in(name: str) -> Callable[[], list[ModelEntry]] | None:
    seeded = seeded_zoo(name)
    return partial(trained_models, *seeded) if seeded else BUILT_IN.get(name)


def _from_file(path: Path) -> list[ModelEntry]:
    if not is_file(path):
        raise InputError(
            f"unknown catalogue {shown(str(path), 300)}: neither a file nor one of {', '.join(BUILT_IN)}"
        )
    return read_catalog(path)


def _timm_pretrained() -> list[ModelEntry]:
    """timm's registry, asked in a process of its own: the caller's stays free of timm and torch."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_ask_timm).result()


def _ask_timm() -> list[ModelEntry]:
    from .timm_registry import pretrained_models

    return pretrained_models()


BUILT_IN: dict[str, Callable[[], list[ModelEntry]]] = {
    **{zoo: partial(trained_models, zoo) for zoo in TRAINED_ZOOS},
    "imagenet-2023": partial(_from_file, TABLES / "imagenet-2023.csv"),
    "imagenet-2025": partial(_from_file, TABLES / "imagenet-2025.csv"),
    "timm-pretrained": _timm_pretrained,
}
