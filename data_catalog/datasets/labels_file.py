"""A folder of images with a table of their labels."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.tables import read_table
from dsmi_zoo._util.text import counted, natural_order, shortened, shown

from .base import Account
from .folders import Listing, account_of_rest, exclusion_reason, files_below, with_alike_names

COLUMNS = {
    "image": ("file", "filename", "file_name", "filepath", "path", "image_path", "img", "images", "image_id", "id"),
    "label": ("class", "category", "target", "labels", "class_name", "classname", "cats", "y"),
}  # fmt: skip
"""The required columns, with other common names for them."""
MISSING_VALUES = ("nan", "#n/a", "<na>")  # as pandas and spreadsheets write them
MAYBE_MISSING = ("na", "n/a", "none", "null", "nil", "missing", "-", "?")  # fmt: skip
"""Labels that may be missing values or classes: NA is also Namibia."""
NUMBER = re.compile(r"(-?)\+?0*([0-9]+?)(?:\.([0-9]*?)0*)?")
"""Numbers of equal value have equal groups."""
SPLIT_COLUMNS = ("split", "set", "subset", "fold", "is_valid", "partition")


def list_labels_file(root: Path) -> Listing:
    """List a folder of images with a table of the columns ``image`` (a path in the folder) and ``label``.

    Raises
    ------
    InputError
        For an invalid table; the message names the line.
    """
    table = root / "labels.csv"
    if not table.is_file():
        raise InputError(f"{root}: holds no labels.csv with the columns image,label")
    header, rows = read_table(table, "labels of images")
    image, label = (_column(name, header, table) for name in COLUMNS)
    folder = _Folder(root)
    splits = _Values(header, SPLIT_COLUMNS)
    names: list[str] = []
    classes: list[str] = []
    first_line: dict[Path, int] = {}
    for line, cells in rows:
        where = f"{table}, line {line}"
        if not cells[image] or not cells[label]:
            raise InputError(f"{where}: an image or its label is missing")
        if cells[label].lower() in MISSING_VALUES:
            raise InputError(
                f"{where}: the label {shown(cells[label])} stands for a missing value: "
                "remove the line, or name the class otherwise"
            )
        name, path = folder.find(cells[image], where)
        if path in first_line:
            raise InputError(f"{where}: {shown(name)} is already in line {first_line[path]}")
        first_line[path] = line
        names.append(name)
        classes.append(cells[label])
        splits.add(cells)
    class_names = sorted(set(classes), key=natural_order)
    _refuse_equal_numbers(class_names, table)
    number = {name: label for label, name in enumerate(class_names)}
    labels = np.array([number[c] for c in classes], dtype=np.int64)
    account = account_of_rest(root, [*names, table.name], "not in labels.csv")
    account = with_alike_names(splits.noted_in(account), class_names)
    account = _with_other_meanings(account, class_names)
    account = _with_other_folders(account, names, classes)
    return Listing(tuple(names), labels, class_names, account)


def _with_other_meanings(account: Account, class_names: Sequence[str]) -> Account:
    """Return the account with a reading for labels that may be several classes at once, or none."""
    words = {name: re.findall(r"[^][\s,;|/+&'\"]+", name) for name in class_names}
    single = {parts[0] for parts in words.values() if len(parts) == 1}
    joined = [name for name, parts in words.items() if len(parts) > 1 and single.issuperset(parts)]
    if joined:
        some = ", ".join(shown(name) for name in joined[:3])
        account = account.reading(
            f"{counted(len(joined), 'label')} of several classes ({some}) taken as "
            f"{'other classes' if len(joined) > 1 else 'another class'}",
            other="as each of them",
            option="one label per image",
        )
    values = [NUMBER.fullmatch(name) for name in class_names]
    if all(values) and any(value and value[3] for value in values):
        account = account.reading(
            f"{counted(len(class_names), 'number')} ({', '.join(class_names[:3])}, ...) taken as classes",
            other="as values to predict",
            option="writing labels as words",
        )
    for name in class_names:
        if name.lower() in MAYBE_MISSING:
            account = account.reading(
                f"the label {shown(name)} is a class",
                other="a missing value",
                option="removing its rows or renaming it",
            )
    return account


def _with_other_folders(account: Account, names: Sequence[str], classes: Sequence[str]) -> Account:
    """Return the account with a reading for images in folders named after a class other than their label."""
    folders = [PurePath(name).parts[0] for name in names]
    if set(folders) != set(classes):
        return account
    others = [name for name, *two in zip(names, folders, classes, strict=True) if len(set(two)) > 1]
    if not others:
        return account
    differ = f"which differ for {counted(len(others), 'image')}, such as {shown(others[0])}"
    return account.reading(
        "the classes are the labels in labels.csv",
        other=f"the names of the folders, {differ}",
        option="--dataset (csv or imagefolder)",
    )


def _column(name: str, header: Sequence[str], table: Path) -> str:
    """Return a required column's name as the header spells it, in any case."""
    if name in header:
        return name
    candidates = [column for column in header if column.lower() == name]
    if len(candidates) == 1:
        return candidates[0]
    has = shortened(",".join(header), 300)
    needed = f"{table}: needs the columns image,label in its first line; it has {has}"
    alike = [column for column in header if column.lower() in COLUMNS[name]]
    if len(alike) == 1:
        raise InputError(f"{needed}: rename {shown(alike[0])} to {name}")
    if any(PurePath(column).suffix and not exclusion_reason(column) for column in header):
        raise InputError(f"{needed}: put the line image,label first")
    if len(header) == 1 and set(header[0].lower().split()) > {"image"}:
        raise InputError(f"{needed}: separate its cells with commas")
    raise InputError(needed)


class _Folder:
    """A folder in which the images that a table names are found."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.resolved = root.resolve()

    def find(self, cell: str, where: str) -> tuple[str, Path]:
        """Return an image's name in the folder and its resolved path; allow Windows' separators and a missing suffix.

        Raises
        ------
        InputError
            When there is no such file, or it lies outside the folder.
        """
        # A cell that is a valid path keeps its spelling, which is part of the subset's hash.
        name = cell
        if not is_file(self.resolved / name):
            slashes = cell.replace("\\", "/")
            name = self._with_suffix(slashes, where) or slashes
        if not is_file(self.resolved / name):
            raise InputError(f"{where}: {shown(cell)} is not a file{self._hint(name)}")
        path = (self.resolved / name).resolve()
        if not path.is_relative_to(self.resolved):
            raise InputError(f"{where}: {shown(cell)} lies outside the folder")
        if PurePath(name).is_absolute():
            name = path.relative_to(self.resolved).as_posix()
        return name, path

    def _with_suffix(self, name: str, where: str) -> str | None:
        """Return the only image with this name and a suffix; None if no image matches."""
        images = self._by_stem.get(PurePath(name), [])
        if len(images) > 1:
            some = " and ".join(shown(image) for image in images[:2])
            raise InputError(f"{where}: {shown(name)} may be {some}: add the suffix")
        return images[0] if images else None

    @cached_property
    def _images(self) -> list[str]:
        return [file.name for file in files_below(self.root, self.root) if not file.reason]

    @cached_property
    def _by_stem(self) -> dict[PurePath, list[str]]:
        by_stem: dict[PurePath, list[str]] = defaultdict(list)
        for name in self._images:
            by_stem[PurePath(name).with_suffix("")].append(name)
        return by_stem

    @cached_property
    def _zero_padded(self) -> dict[PurePath, list[str]]:
        """Images by their name without leading zeros, which spreadsheets drop."""
        by_stem: dict[PurePath, list[str]] = defaultdict(list)
        for name in self._images:
            path = PurePath(name)
            by_stem[path.with_name(path.stem.lstrip("0") or "0")].append(name)
        return by_stem

    def _hint(self, name: str) -> str:
        """Return a suggestion of the image that may be meant, with a leading colon, or ""."""
        parts = PurePath(name).parts
        for start in range(1, len(parts)):
            shorter = "/".join(parts[start:])
            if is_file(self.resolved / shorter):
                return f": did you mean {shown(shorter)}? Paths begin in {self.root}"
        last = parts[-1] if parts else ""
        near = [image for image in self._images if PurePath(image).name.lower() == last.lower()]
        near = near or self._zero_padded.get(PurePath(os.path.splitext(name)[0]), [])  # noqa: PTH122 also of "."
        near = near or get_close_matches(name, self._images, n=1)
        return f": did you mean {shown(near[0])}?" if near else ""


class _Values:
    """The values in a table's split column, if it has one."""

    def __init__(self, header: Sequence[str], names: Sequence[str]) -> None:
        self._column = next((column for column in header if column.lower() in names), None)
        self._seen: set[str] = set()

    def add(self, cells: dict[str, str]) -> None:
        """Note a row's value."""
        if self._column is not None:
            self._seen.add(cells[self._column])

    def noted_in(self, account: Account) -> Account:
        """Return the account with a reading if there are several values, because rows of all splits are used."""
        if len(self._seen) < 2:
            return account
        some = ", ".join(shown(value) for value in sorted(self._seen)[:3])
        return account.reading(
            f"all rows of labels.csv are used, whatever their {shown(self._column)} ({some})",
            other="those of one value",
            option="removing the others from the table",
        )


def _refuse_equal_numbers(class_names: Iterable[str], table: Path) -> None:
    """Raise InputError for labels such as ``1``, ``1.0`` and ``01``, which spreadsheets make of one label."""
    by_value: dict[tuple[str, ...], str] = {}
    for name in class_names:
        parts = NUMBER.fullmatch(name)
        if parts is None:
            continue
        value = parts.groups("")  # text, because floats cannot tell long numbers apart
        if value in by_value:
            both = f"{shown(by_value[value])} and {shown(name)}"
            raise InputError(
                f"{table}: the labels {both} are one number: write it in one way, or name the classes otherwise"
            )
        by_value[value] = name
