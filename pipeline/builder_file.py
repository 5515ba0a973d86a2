"""Where a catalogue's builder stands, and what an entry with one is taken for; found without running it."""

import hashlib
import importlib.util
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from ..data_catalog import imagenet
from ..data_catalog.entries import ModelEntry, Preprocessing
from ..data_catalog.errors import InputError
from ..data_catalog.traits import kind_of
from .users_modules import current_folder_last

IMG_SIZE = 224
PREPROCESSING = Preprocessing(crop_pct=0.875, interpolation="bicubic", mean=imagenet.MEAN, std=imagenet.STD)


def with_builder_defaults(entry: ModelEntry) -> ModelEntry:
    """Fill what the catalogue leaves open: the family by the builder's module, the preprocessing by habit."""
    assert entry.builder is not None
    module = entry.builder.partition(":")[0]
    family = entry.family or module.rpartition(".")[2]
    defaults = {
        "family": family,
        "kind": kind_of(family, entry.architecture),
        "img_size": IMG_SIZE,
        "preprocessing": PREPROCESSING,
    }
    return entry.model_copy(update={name: value for name, value in defaults.items() if getattr(entry, name) is None})


def builder_file(builder: str) -> Path:
    """The file of a builder's module, as a worker would import it; neither it nor a package around it is run.

    The current directory counts as the last of Python's paths.

    Parameters
    ----------
    builder
        ``module:function``.

    Raises
    ------
    InputError
        When there is no such module, or it has no file.
    """
    module = builder.partition(":")[0]
    with current_folder_last():
        spec = _found(module)
    if spec is None:
        raise InputError(f"builder {builder}: no module {module!r} is installed, or found in {Path.cwd()}")
    if spec.origin is None or not Path(spec.origin).is_file():
        raise InputError(f"builder {builder}: {module} has no file; put the function in a module of your own")
    return Path(spec.origin)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _found(module: str) -> ModuleSpec | None:
    """The module's spec; ``find_spec`` of a name with dots would import the packages around it."""
    first, *others = module.split(".")
    try:
        spec = importlib.util.find_spec(first) if first != "__main__" else None  # a worker's is another one
    except ValueError:  # of a module that was made by hand
        return None
    for name in others:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec
