"""Read PyTorch and safetensors files by their content, and report any other format in one line; no pickle is run."""

import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import InputError
from .text import shortened, shown

START_BYTES = 512  # holds every mark that tells formats apart
MAX_HEADER_LENGTH = 100_000_000  # bytes of a safetensors file; the format's own limit
MAX_PICKLE_BYTES = 200_000_000  # bytes that are searched for the names of unreadable types
LEGACY_PICKLES = 5  # at the beginning of a file of PyTorch before 1.6
LEGACY_MARK = b"l\xfc\x9cF\xf9 j\xa8P\x19"
TAR_MARK = slice(257, 262)
TENSORFLOW_END = struct.pack("<Q", 0xDB4775248B80FB57)  # of the index of a TensorFlow checkpoint
COPY_AGAIN = "copy or download it again"
SAVE_STATE_DICT = "save the state dict alone: torch.save(model.state_dict(), ...)"

FOREIGN_FORMATS = {
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file, as Keras writes; convert its weights to PyTorch",
    b"GGUF": "is a GGUF file; convert its weights to PyTorch",
    b"\x1f\x8b": "is compressed by gzip; unpack it",
    b"BZh": "is compressed by bzip2; unpack it",
    b"\xfd7zXZ\x00": "is compressed by xz; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it",
    b"Rar!": "is a RAR archive; unpack it",
}
"""Formats of files that are given as weights by mistake, by their first bytes."""

# fmt: off
HARMLESS_PACKAGES = frozenset({
    "numpy", "argparse", "pathlib", "datetime", "decimal", "uuid", "typing", "omegaconf", "ml_collections", "easydict",
    "addict", "yacs", "box", "munch", "mmengine", "mmcv", "lightning", "lightning_fabric", "lightning_utilities",
    "pytorch_lightning",
})
"""Packages whose objects may be left out: numbers, paths and settings stored with the weights."""

HARMLESS_TYPES = frozenset({
    "collections.defaultdict", "collections.deque", "types.SimpleNamespace", "builtins.list", "builtins.dict",
    "builtins.int", "builtins.float", "builtins.str", "builtins.bool", "builtins.tuple", "builtins.frozenset",
    "builtins.slice", "builtins.range",
})
# fmt: on


@dataclass(frozen=True)
class TensorFile:
    """The tensors in a file.

    Attributes
    ----------
    content
        Tensors, in whatever nesting the file has.
    is_safetensors
        Whether the file is safetensors, whatever its name says.
    replaced
        Types of objects that were not read; empty objects take their place.
    """

    content: Any
    is_safetensors: bool = False
    replaced: frozenset[str] = frozenset()


def read_tensors(path: Path) -> TensorFile:
    """Read a file by its content, on the CPU.

    Raises
    ------
    InputError
        For any other file; the message continues "the file ..." with what it is, and what to do.
    """
    problem = format_problem(path)
    if problem:
        raise InputError(problem)
    if is_safetensors(path):
        return TensorFile(_safetensors(path), is_safetensors=True)
    return _pytorch(path)


def format_problem(path: Path, advice: str = SAVE_STATE_DICT) -> str:
    """Return what a file is if neither PyTorch nor safetensors, and what to do; empty if it is one of these.

    Parameters
    ----------
    advice
        What to do with a file that holds the wanted tensors in another form.
    """
    if path.is_dir():
        return "is a folder; name the file of weights in it"
    start, size = _start(path), path.stat().st_size
    if not start:
        return f"is empty; {COPY_AGAIN}"
    if start.startswith(b"version http") and b"oid sha256:" in start:
        return "is a Git LFS pointer, not the file itself: run git lfs pull"
    if start.startswith(b"PK"):
        return _zip_problem(path, advice)
    if is_safetensors(path):
        return _safetensors_problem(path, size)
    if LEGACY_MARK in start[:20]:
        return ""
    return _foreign_format(path, start, advice)


def text_of(start: bytes) -> str:
    """Return the beginning of a file as one line of text; empty if it is binary."""
    text = " ".join(start.decode("utf-8-sig", "replace").split())
    is_text = text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text
    return text if is_text else ""


def _foreign_format(path: Path, start: bytes, advice: str) -> str:
    for mark, problem in FOREIGN_FORMATS.items():
        if start.startswith(mark):
            return problem
    if start.startswith(b"\x93NUMPY"):
        return f"is an array of NumPy; {advice}"
    if start[TAR_MARK] == b"ustar":
        return "is a tar archive; unpack it and name the file of weights in it"
    if re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        return "is an HTML page, not weights; download the file by its direct address"
    text = text_of(start[:40])
    if text:
        return f"is text ({shown(text)}), not weights"
    if start.startswith(b"\x80"):
        return f"was written by pickle, not by torch.save; {advice}"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(TENSORFLOW_END)))
        if file.read() == TENSORFLOW_END:
            return "is a TensorFlow checkpoint; convert its weights to PyTorch"
    return (
        "is neither a PyTorch nor a safetensors file; save the weights by torch.save or safetensors"
    )


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(START_BYTES)


def _zip_problem(path: Path, advice: str) -> str:
    """Return what a ZIP archive is, unless ``torch.save`` wrote it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return f"is cut off or damaged (its table of contents is missing); {COPY_AGAIN}"
    files = {name.rpartition("/")[2] for name in names}
    if {"data.pkl", "constants.pkl"} <= files:
        return f"is a TorchScript archive, which holds code; {advice}"
    if "data.pkl" in files:
        return ""
    if "archive_format" in files:
        return f"is an archive of torch.export, which holds code; {advice}"
    within = ", ".join(shown(name) for name in names[:3]) or "none"
    return f"is a ZIP archive of other files ({within}); unpack it and name the file of weights"


def is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors files do."""
    start = _start(path)
    if len(start) < 10 or start[8:9] != b"{":
        return False
    return int(struct.unpack("<Q", start[:8])[0]) <= MAX_HEADER_LENGTH


def _safetensors_problem(path: Path, size: int) -> str:
    import json

    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = file.read(length)
    if len(header) < length:
        return f"is cut off within its header; {COPY_AGAIN}"
    with suppress(ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        tensors = [value for name, value in json.loads(header).items() if name != "__metadata__"]
        wanted = 8 + length + max((int(value["data_offsets"][1]) for value in tensors), default=0)
        if size < wanted:
            return f"is cut off: it has {size:,} of {wanted:,} bytes; {COPY_AGAIN}"
    return ""


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except MemoryError:
        raise
    except Exception as error:  # the library does not document what it raises
        raise InputError(f"is a damaged safetensors file; {COPY_AGAIN}") from error


def load_pytorch(path: Path) -> Any:
    """Load what ``torch.save`` wrote, on the CPU; anything but tensors and plain containers raises."""
    import torch

    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual tensors and pickle protocols
        # PyTorch would go by the file's suffix, which may be wrong.
        source = file if path.suffix == ".safetensors" else path
        return torch.load(source, map_location="cpu", weights_only=True)


def _pytorch(path: Path) -> TensorFile:
    """Read a file of ``torch.save`` with nothing but tensors and plain containers; harmless objects are left out."""
    import torch

    try:
        return TensorFile(load_pytorch(path))
    except MemoryError:
        raise
    except pickle.UnpicklingError:
        found = pickled_types(path)
    except Exception as error:  # PyTorch does not document what it raises for damaged files
        raise InputError(f"is cut off or damaged; {COPY_AGAIN}") from error
    replaced = frozenset(name for name in found if _is_harmless(name))
    try:
        with torch.serialization.safe_globals([_replacement(name) for name in sorted(replaced)]):
            return TensorFile(load_pytorch(path), replaced=replaced)
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(_unreadable(str(error), found)) from error


def _is_harmless(name: str) -> bool:
    return name.partition(".")[0] in HARMLESS_PACKAGES or name in HARMLESS_TYPES


class _Nothing:
    """A placeholder for an object that is not read; it drops the object's arguments and state."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _empty_dict(_: type, *__: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()  # PyTorch's reader adds items to the plain types only


def _empty_list(_: type, *__: Any) -> list[Any]:
    return []


def _replacement(name: str) -> type:
    """Return a class of this full name that does nothing: PyTorch's reader finds classes by name."""
    module, _, plain_name = name.rpartition(".")
    place = {"__module__": module, "__qualname__": plain_name}
    if module.partition(".")[0] == "numpy":  # whose state is a tuple
        return type(plain_name, (_Nothing,), place)
    empty = _empty_list if plain_name == "deque" else _empty_dict
    return type(plain_name, (), place | {"__new__": empty})


def _unreadable(reason: str, found: dict[str, str]) -> str:
    """Return what keeps a pickle from being read, from PyTorch's reason and the types in the file."""
    blamed = re.search(r"GLOBAL (\S+)", reason)
    if blamed is None:
        kind = "a pickle of another protocol than torch.save's own"
        what = kind if "operand" in reason else "objects that cannot be read safely"
        return f"holds {what}; {SAVE_STATE_DICT}"
    name = blamed[1] if "." in blamed[1] else f"builtins.{blamed[1]}"
    key = found.get(name, "")
    where = f" (key {shown(key)})" if key else ""
    is_network = any(other.startswith("torch.nn.modules.") for other in found)
    what = "a whole network," if is_network else "an object of"
    return f"holds {what} {shortened(name)}{where}; {SAVE_STATE_DICT}"


def pickled_types(path: Path) -> dict[str, str]:
    """Return the full names that the pickles of a PyTorch file refer to, each with the text before it, its key."""
    found: dict[str, str] = {}
    texts: list[str] = []
    with suppress(ValueError, IndexError, OSError, zipfile.BadZipFile, NotImplementedError):
        for operation, value in _pickle_operations(path):
            if operation in ("GLOBAL", "STACK_GLOBAL"):
                module, name = value.split(" ", 1) if operation == "GLOBAL" else texts[-2:]
                module, name = NAME_MAPPING.get((module, name), (module, name))
                full_name = f"{IMPORT_MAPPING.get(module, module)}.{name}"
                key = texts[-1] if texts and operation == "GLOBAL" else ""
                found.setdefault(full_name, key)
            elif isinstance(value, str):
                texts = [*texts[-1:], value]
    return found


def _pickle_operations(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the operations of a file's pickles without carrying them out."""

    def of(file: BinaryIO | bytes) -> Iterator[tuple[str, Any]]:
        for operation, value, _ in pickletools.genops(file):
            yield operation.name, value

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
            with archive.open(name) as member:
                yield from of(member.read(MAX_PICKLE_BYTES))
        return
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            yield from of(file)
