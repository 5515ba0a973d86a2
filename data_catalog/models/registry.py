"""Load a catalogue, built in or from a file, and find entries in it; define the zoos that the pipeline trains."""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256
from dsmi_zoo._util.forkserver import process_pool
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.text import shown

from .csv_catalog import read_catalog
from .entry import CURRENT_NAMES, ModelEntry, Preprocessing, TrainingRecipe
from .taxonomy import kind_of

IMG_SIZE = 32

# Attention over a fixed grid needs the size of the images.
_VIT = {"img_size": IMG_SIZE, "patch_size": 8}
ARCHITECTURES: dict[str, tuple[str, dict[str, int]]] = {
    "test_byobnet": ("byobnet", {}),
    "test_coatnet": ("maxxvit", {"img_size": IMG_SIZE}),
    "test_convnext": ("convnext", {}),
    "test_convnext2": ("convnext", {}),
    "test_convnext3": ("convnext", {}),
    "test_efficientnet": ("efficientnet", {}),
    "test_efficientnet_evos": ("efficientnet", {}),
    "test_efficientnet_gn": ("efficientnet", {}),
    "test_efficientnet_ln": ("efficientnet", {}),
    "test_mambaout": ("mambaout", {}),
    "test_nfnet": ("nfnet", {}),
    "test_resnet": ("resnet", {}),
    "test_vit": ("vision_transformer", _VIT),
    "test_vit2": ("vision_transformer", _VIT),
    "test_vit3": ("vision_transformer", _VIT),
    "test_vit4": ("vision_transformer", _VIT),
}

# (training images, epochs): from hardly trained to well trained, to spread the accuracies.
BUDGETS = ((100, 3), (900, 2), (900, 5))

PREPROCESSING = Preprocessing(
    crop_pct=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)

TRAINED_ZOOS = ("digits", "fashion")
"""Catalogues, named after the data set on which their networks are trained and measured."""
TABLES = Path(__file__).parents[1] / "tables"
DEFAULT_MODELS = TABLES / "default-models.csv"


def seeded_zoo(name: str) -> tuple[str, int] | None:
    """Return the zoo and the seed of ``digits`` or ``fashion:3``; None for any other name."""
    match = re.fullmatch(rf"({'|'.join(TRAINED_ZOOS)})(?::([1-9]\d{{0,8}}))?", name)
    return (match[1], int(match[2] or 0)) if match else None


def trained_models(zoo: str, seed: int = 0) -> list[ModelEntry]:
    """Return the 48 entries of a zoo; their accuracies are unknown until they are trained.

    Parameters
    ----------
    zoo
        One of ``TRAINED_ZOOS``.
    seed
        Determines the split of the images, the initial weights, and the order of the batches.
    """
    entries = []
    for images, epochs in BUDGETS:
        recipe = TrainingRecipe(
            dataset=f"{zoo}:{seed}" if seed else zoo,
            train_images=images,
            epochs=epochs,
            batch_size=50,
            learning_rate=2e-3,
            weight_decay=0.01,
            seed=seed,
        )
        for architecture, (family, arguments) in ARCHITECTURES.items():
            entry = ModelEntry(
                model=f"{architecture}.{images}x{epochs}",
                architecture=architecture,
                family=family,
                kind=kind_of(family, architecture),
                img_size=IMG_SIZE,
                group=f"{images} images x {epochs} epochs",
                model_kwargs={"num_classes": 10, **arguments},
                recipe=recipe,
                preprocessing=PREPROCESSING,
                extras={"train_images": images, "epochs": epochs},
            )
            entries.append(entry)
    return entries


def load_models(catalog: str | Path, patterns: str | Sequence[str] = ()) -> list[ModelEntry]:
    """Return the entries of a catalogue, in its order.

    Parameters
    ----------
    catalog
        The name of a built-in catalogue (a key of ``BUILT_IN``), ``digits:SEED``, ``fashion:SEED``, or the path of a
        CSV or Parquet file.
    patterns
        Shell patterns, or a single one. Keeps entries whose ``model`` or ``model@size`` matches any pattern; without
        patterns, all entries. The name of a timm network, such as ``resnet18``, stands for its default model.

    Raises
    ------
    InputError
        For an unknown catalogue, a wrong value (with its line), duplicates, or a pattern that matches nothing.
    """
    built_in = _built_in(str(catalog))
    if built_in:
        entries = built_in()
    elif is_file(catalog):
        entries = read_catalog(Path(catalog))
    else:
        raise InputError(
            f"unknown catalogue {shown(str(catalog), 300)}: neither a file nor one of {', '.join(BUILT_IN)}"
        )
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    if not patterns:
        return entries
    chosen: set[str] = set()
    for pattern in patterns:
        hits = [e for e in entries if fnmatchcase(e.model, pattern) or fnmatchcase(str(e), pattern)]
        hits = hits or _by_network(entries, pattern)
        if not hits:
            hint = _nearest(pattern, entries) or f"; for example: {entries[0].model}"
            raise InputError(f"no model of {catalog} matches {shown(pattern)}{hint}")
        chosen.update(map(str, hits))
    return [e for e in entries if str(e) in chosen]


def find_entries(
    entries: Sequence[ModelEntry], names: Iterable[str], where: str
) -> list[ModelEntry]:
    """Return the entries whose names match exactly; ``MODEL`` stands for all sizes, ``MODEL@SIZE`` for one."""
    chosen: dict[str, ModelEntry] = {}
    for name in names:
        hits = [e for e in entries if e.model == name] or [e for e in entries if str(e) == name]
        hits = hits or _by_network(entries, name)
        if not hits:
            raise InputError(f"{where} has no model {shown(name)}{_nearest(name, entries)}")
        chosen.update({str(e): e for e in hits})
    return list(chosen.values())


def _nearest(name: str, entries: Iterable[ModelEntry]) -> str:
    near = get_close_matches(name, [e.model for e in entries], n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _by_network(entries: Iterable[ModelEntry], name: str) -> list[ModelEntry]:
    """Return the entries of timm's default model for a network, ``resnet18`` or ``resnet18@288``."""
    network, _, size = name.partition("@")
    model = default_models().get(network)
    return [e for e in entries if e.model == model and size in ("", str(e.img_size))]


@cache
def default_models() -> dict[str, str]:
    """Return timm's default model by network, from a table: asking timm takes seconds."""
    with DEFAULT_MODELS.open(encoding="utf-8", newline="") as file:
        return {row["network"]: row["model"] for row in csv.DictReader(file)}


@cache
def published_speeds() -> dict[tuple[str, int | None], tuple[float | None, float | None]]:
    """Return timm's published images per second, on a GPU and on a CPU, by network (without its tag) and image size.

    Tags name weights, which do not change the speed. The conditions are in ``data_catalog/tables/README.md``.
    """
    return {
        (entry.architecture.partition(".")[0], entry.img_size): (
            entry.extras.get("throughput"),
            entry.extras.get("cpu_throughput"),
        )
        for entry in load_models("imagenet-2025")
    }


def catalog_sha256(catalog: str | Path) -> str:
    """Hash a catalogue: its file, or the entries of a built-in one."""
    if not _built_in(str(catalog)):
        return file_sha256(Path(catalog))
    lines: list[str] = []
    for entry in load_models(catalog):
        # Written as by the first versions, so that the hash in existing run.json files stays valid.
        line = entry.model_dump_json(exclude={"builder", "layer", "checkpoint_key"})
        for former, current in CURRENT_NAMES.items():
            line = line.replace(f'"{current}":', f'"{former}":')
        lines.append(line)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _built_in(name: str) -> Callable[[], list[ModelEntry]] | None:
    seeded = seeded_zoo(name)
    return partial(trained_models, *seeded) if seeded else BUILT_IN.get(name)


def _timm_pretrained() -> list[ModelEntry]:
    """Ask timm in another process, so that the caller imports neither timm nor torch."""
    with process_pool(1, ("timm",)) as pool:
        return pool.submit(_ask_timm).result()


def _ask_timm() -> list[ModelEntry]:
    from .timm_registry import pretrained_models

    return pretrained_models()


BUILT_IN: dict[str, Callable[[], list[ModelEntry]]] = {
    **{zoo: partial(trained_models, zoo) for zoo in TRAINED_ZOOS},
    "imagenet-2023": partial(read_catalog, TABLES / "imagenet-2023.csv"),
    "imagenet-2025": partial(read_catalog, TABLES / "imagenet-2025.csv"),
    "timm-pretrained": _timm_pretrained,
}
