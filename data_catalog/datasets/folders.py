"""Image files in folders: list them by class, give a reason for each file left out, find copies and unreadable ones."""

import errno
import os
import re
import stat
import unicodedata
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256
from dsmi_zoo._util.text import is_printable, printable, shown

from .base import NOTHING_LEFT_OUT, Account
from .decoding import FORMATS, read_image
from .deep_pixels import UnknownWhite

BEGINNING_BYTES = 4096

Value = TypeVar("Value")
HIDDEN = "hidden or written by the system"
IN_HIDDEN = "in hidden or system folders"
BROKEN = "with a broken link"
LOOPS = "whose link loops"
TWICE = "reached again through a link"
SPECIAL = "not a regular file"
LOOSE = "beside the class folders"
NO_SUFFIX = "without a suffix"
OTHER_SUFFIXES = "with other suffixes"
NEEDS_HEIF = "in HEIC format, which needs `pip install pillow-heif`"

HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
MAX_SUFFIXES = 8  # suffixes reported one by one; DICOM files end in thousands of different numbers
_PLAIN_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")

# In lower case. Written by Windows, macOS, and the network drives of Synology, QNAP and others.
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"}
SYSTEM_FOLDERS = {
    "@eadir", "@recently-snapshot", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin",
    "__macosx", "__pycache__", "lost+found", "network trash folder", "recycler", "system volume information",
    "temporary items",
}  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """Images below a folder: their names (relative paths), their labels (int64 [n]) and the names of all labels.

    It unpacks to these three; ``account`` says what else the folder holds.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    class_names: list[str]
    account: Account = NOTHING_LEFT_OUT

    def __iter__(self) -> Iterator[Any]:
        return iter((self.names, self.labels, self.class_names))


@dataclass(frozen=True)
class ImageFiles:
    """Image files below one folder; ``names`` are relative paths, so they are the same on every machine.

    ``white`` is the level of white of images of more than 8 bits; by default it is found for each image. Each file is
    hashed once per opening of the data set.
    """

    name: str
    root: Path
    names: tuple[str, ...]
    labels: np.ndarray
    class_names: dict[int, str]
    classifier_width: int | None = None
    account: Account = NOTHING_LEFT_OUT
    white: float | None = None
    _hashes: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hashes": {}}  # workers need no hashes

    def path(self, number: int) -> Path:
        """Return the path of an image."""
        return self.root / self.names[number]

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB, upright, 8 bits per channel."""
        return read_image(self.path(number), self.white)

    def fingerprint(self, number: int) -> str:
        """Return the SHA-256 of the file."""
        name = self.names[number]
        if name not in self._hashes:
            self._hashes[name] = self._of_file(_sha256, number)
        return self._hashes[name]

    def size(self, number: int) -> int:
        """Return the size of the file in bytes."""
        return self._of_file(os.path.getsize, number)

    def beginning(self, number: int) -> bytes:
        """Return the first bytes of the file."""
        return self._of_file(_beginning, number)

    def _of_file(self, read: Callable[[str], Value], number: int) -> Value:
        path = f"{self.root}/{self.names[number]}"  # for tens of thousands of files: a Path takes longer than reading
        try:
            return read(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None

    def take(self, numbers: np.ndarray) -> Self:
        """Return only these images, in this order."""
        names = tuple(self.names[i] for i in numbers)
        return replace(self, names=names, labels=self.labels[numbers])


def unreadable(paths: Sequence[Path], threads: int = 4) -> dict[int, str]:
    """Return why images cannot be decoded, by their index in ``paths``; an unknown level of white does not count."""

    def problem(path: Path) -> str | None:
        try:
            read_image(path)
        except UnknownWhite:
            return None
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads) as pool:
        problems = pool.map(problem, paths)
    return {number: text for number, text in enumerate(problems) if text is not None}


def _sha256(path: str) -> str:
    return file_sha256(Path(path))


def _beginning(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY)  # half the time of a file object
    try:
        return os.read(file, BEGINNING_BYTES)
    finally:
        os.close(file)


def copies(
    images: ImageFiles, numbers: Iterable[int], *, few_are_hashed: bool = False
) -> list[list[int]]:
    """Return groups of images that have the same bytes.

    Parameters
    ----------
    numbers
        The images to compare.
    few_are_hashed
        Hash only files with the same size and beginning; False if all hashes are needed anyway.
    """
    steps: list[Callable[[int], Hashable]] = [images.fingerprint]
    if few_are_hashed:
        steps = [images.size, images.beginning, images.fingerprint]
    groups = [list(numbers)]
    for step in steps:
        groups = [part for group in groups for part in _parts(group, step)]
    return groups


def _parts(group: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Split a group by a key, and return the parts of at least two."""
    parts: dict[Hashable, list[int]] = defaultdict(list)
    for number in group:
        parts[key(number)].append(number)
    return [part for part in parts.values() if len(part) > 1]


def refuse_odd_name(name: str, root: Path) -> None:
    """Raise InputError for a name that no table or page can hold."""
    if not is_printable(name):
        raise InputError(
            f"{root}: the name {shown(name, 200)} is not UTF-8, or holds a control character; rename it"
        )


def subfolders(root: Path) -> list[Path]:
    """Return a folder's subfolders, sorted by name, without hidden and system folders and links to parents."""
    place = os.path.realpath(root)
    try:
        return sorted(
            path
            for path in root.iterdir()
            if path.is_dir() and not is_ignored_folder(path.name) and not leads_upwards(path, place)
        )
    except OSError as error:
        raise InputError(f"{root}: cannot be listed: {error.strerror}") from None


def list_class_folders(root: Path) -> Listing:
    """List a folder with one folder of images per class; the labels follow the order of their names.

    Raises
    ------
    InputError
        When there is no class folder, or one of them holds no image.
    """
    folders = subfolders(root)
    for folder in folders:
        refuse_odd_name(folder.name, root)
    if not folders:
        raise InputError(
            f"{root}: holds no class folders; it needs one folder of images for each class"
        )
    names, labels, account = images_by_folder(folders, root)
    classes = [folder.name for folder in folders]
    return Listing(names, labels, classes, with_alike_names(account, classes))


def images_by_folder(
    folders: Sequence[Path], root: Path
) -> tuple[tuple[str, ...], np.ndarray, Account]:
    """List the images in folders that lie side by side.

    Returns
    -------
    names
        The images' paths below ``root``.
    numbers : int64 [n]
        The index of each image's folder.
    account
        All other files in the folders, and beside them.
    """
    names: list[str] = []
    numbers: list[int] = []
    others: list[FoundFile] = []
    empty: list[str] = []
    for number, folder in enumerate(folders):
        files = files_below(folder, root)
        images = [file.name for file in files if not file.reason]
        for name in images:
            refuse_odd_name(name, root)
        if not images:
            what_else = "; ".join(str(part) for part in account_of(files).left_out)
            empty.append(f"{folder.name} ({what_else})" if what_else else folder.name)
        names += images
        numbers += [number] * len(images)
        others += [file for file in files if file.reason]
    if empty:
        some = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise InputError(
            f"{root}: {len(empty)} of {len(folders)} class folders hold no image: {some}; fill or remove them"
        )
    parent = folders[0].parent
    beside = files_below(parent, root, skip={folder.name for folder in folders})
    others += [file if file.reason else file._replace(reason=LOOSE) for file in beside]
    return tuple(names), np.array(numbers, dtype=np.int64), account_of(others)


class FoundFile(NamedTuple):
    """A file below a folder.

    ``name`` is its path below the root. ``place`` is its absolute path, with the links of its folders resolved.
    ``reason`` says why it is not an image; "" for an image.
    """

    name: str
    place: str
    reason: str


class _Folder(NamedTuple):
    """A folder to read: its path, its path below the root, its resolved path, and why its files are not used."""

    path: str
    name: str
    place: str
    reason: str = ""

    def below(self, entry: str) -> str:
        return f"{self.name}/{entry}" if self.name else entry


@cache
def suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of all allowed formats, from Pillow's table."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, format_ in known if format_ in FORMATS)


def is_ignored_folder(name: str) -> bool:
    """Return whether a folder is hidden or belongs to the system, so that it holds none of the user's images."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def leads_upwards(path: str | Path, *folders: str) -> bool:
    """Return whether a path resolves to one of these (resolved) folders, or to a folder that holds it."""
    target = os.path.realpath(path)
    return any(f"{folder}/".startswith(f"{target}/") for folder in folders)


def exclusion_reason(name: str) -> str:
    """Return why a file of this name is not an image, or ""."""
    if name.startswith(".") or name.lower() in SYSTEM_FILES:
        return HIDDEN
    stem, dot, suffix = name.rstrip().rpartition(".")  # "photo.jpg " is an image
    return _reason_of_suffix(dot + suffix.lower() if stem else "")


@lru_cache(maxsize=1000)
def _reason_of_suffix(suffix: str) -> str:
    if suffix in suffixes():
        return ""
    if suffix in HEIF_SUFFIXES:
        return NEEDS_HEIF
    if suffix in ("", "."):
        return NO_SUFFIX
    return f"with the suffix {suffix}" if _PLAIN_SUFFIX.fullmatch(suffix) else OTHER_SUFFIXES


def files_below(folder: Path, root: Path, skip: Collection[str] = ()) -> list[FoundFile]:
    """List the files at any depth below ``folder``, each once, sorted by name.

    Links are followed, as by torchvision and timm, but after everything that is reached without them, so that a file
    reached twice is used under its own name. A link that is not followed counts as a file.

    Parameters
    ----------
    skip
        Names in ``folder`` that are not listed.

    Raises
    ------
    InputError
        When a folder cannot be listed.
    """
    name = folder.relative_to(root).as_posix()
    top = _Folder(str(folder), "" if name == "." else name, os.path.realpath(folder).rstrip("/"))
    files: list[FoundFile] = []
    linked_files: list[FoundFile] = []
    folders, links = deque([top]), deque[tuple[_Folder, str]]()
    read: set[str] = set()
    while folders or links:
        if links and not folders:
            target = _followed(*links.popleft(), top.place)
            if isinstance(target, _Folder):
                folders.append(target)
            else:
                linked_files.append(target)
            continue
        here = folders.popleft()
        if here.place in read:
            files.append(FoundFile(f"{here.name}/", here.place, TWICE))
            continue
        read.add(here.place)
        found, below, linked = _entries(here, skip if here is top else ())
        files += found
        folders += below
        links += linked
    return sorted([*files, *_once(linked_files, {file.place for file in files})])


def _once(links: Iterable[FoundFile], places: set[str]) -> Iterator[FoundFile]:
    """Yield linked files; mark as `TWICE` those whose target is in ``places`` or was already linked."""
    for file in links:
        place = os.path.realpath(file.place)
        is_again = not file.reason and place in places
        places.add(place)
        yield file._replace(reason=TWICE) if is_again else file


def _entries(
    here: _Folder, skip: Collection[str]
) -> tuple[list[FoundFile], list[_Folder], list[tuple[_Folder, str]]]:
    """Return a folder's files, its subfolders, and its links, which are not followed yet."""
    files: list[FoundFile] = []
    folders: list[_Folder] = []
    links: list[tuple[_Folder, str]] = []
    for entry in _scanned(here):
        if entry.name in skip:
            continue
        name, place = here.below(entry.name), f"{here.place}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            reason = here.reason or (IN_HIDDEN if is_ignored_folder(entry.name) else "")
            folders.append(_Folder(entry.path, name, place, reason))
        elif here.reason:
            files.append(FoundFile(name, place, here.reason))
        elif entry.is_symlink():
            links.append((here, entry.name))
        else:
            reason = (
                exclusion_reason(entry.name) if entry.is_file(follow_symlinks=False) else SPECIAL
            )
            files.append(FoundFile(name, place, reason))
    return files, folders, links


def _scanned(here: _Folder) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(here.path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if here.reason:  # only the administrator can list lost+found, for example
            return []
        raise InputError(f"{shown(here.path, 300)}: cannot be listed: {error.strerror}") from None


def _followed(here: _Folder, entry: str, top: str) -> FoundFile | _Folder:
    """Return the folder that a link leads to, or the link as a file."""
    name, place = here.below(entry), f"{here.place}/{entry}"
    try:
        mode = Path(place).stat().st_mode
    except OSError as error:
        return FoundFile(name, place, LOOPS if error.errno == errno.ELOOP else BROKEN)
    if stat.S_ISDIR(mode):
        if is_ignored_folder(entry):
            return FoundFile(name, place, IN_HIDDEN)
        if leads_upwards(place, here.place, top):
            return FoundFile(name, place, LOOPS)
        return _Folder(f"{here.path}/{entry}", name, os.path.realpath(place))
    return FoundFile(name, place, exclusion_reason(entry) if stat.S_ISREG(mode) else SPECIAL)


def account_of(files: Iterable[FoundFile]) -> Account:
    """Return the account of the files that are left out."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if file.reason:
            by_reason[file.reason].append(printable(file.name))
    ours = (LOOSE, NEEDS_HEIF, NO_SUFFIX, TWICE, BROKEN, LOOPS, SPECIAL, HIDDEN, IN_HIDDEN)
    others = sorted(set(by_reason) - {*ours, OTHER_SUFFIXES}, key=lambda r: (-len(by_reason[r]), r))
    for reason in others[MAX_SUFFIXES:]:
        by_reason[OTHER_SUFFIXES] += by_reason.pop(reason)
    account = NOTHING_LEFT_OUT
    for reason in (*others[:MAX_SUFFIXES], OTHER_SUFFIXES, *ours):
        account = account.leaving_out(reason, by_reason[reason])
    return account


def account_of_rest(root: Path, used: Iterable[str], reason: str) -> Account:
    """Return the account of all files below ``root`` that a table of images does not name.

    Parameters
    ----------
    used
        The paths below ``root`` that the table names, and that of the table.
    reason
        Why other images are left out, such as "not in labels.csv".
    """
    resolved = cache(os.path.realpath)
    places = set()
    for name in used:
        folder, file = os.path.split(f"{root}/{name}")
        places.add(f"{resolved(folder)}/{file}")
    rest = (file for file in files_below(root, root) if file.place not in places)
    return account_of(file if file.reason else file._replace(reason=reason) for file in rest)


def with_alike_names(account: Account, names: Iterable[str]) -> Account:
    """Return the account with a reading for classes whose names differ only in case, spaces or Unicode form."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    for group in alike.values():
        if len(group) > 1:
            some = ", ".join(ascii(name) for name in group[:3])
            account = account.reading(
                f"{some} are {len(group)} classes",
                other="one whose name is written in several ways",
                option="renaming them",
            )
    return account
