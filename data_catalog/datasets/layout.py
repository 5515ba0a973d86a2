"""Recognise folders that are not classes: splits, groups of classes, and parts of other kinds of data sets."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsmi_zoo._util.text import counted, printable, shortened

from .base import Account
from .folders import exclusion_reason, is_ignored_folder, subfolders

SPLITS = {
    "validation": r"val|valid|validation|dev|eval|evaluation",
    "test": r"test|testing|holdout|heldout",
    "train": r"train|training|trainval",
    "unlabeled": r"unlabell?ed",
}
"""Patterns of the words for each split, in order of preference for measuring."""

WITH_NOUN = r"(?:sets?|data|dataset|split|images?|imgs?)?"
NOUNS = frozenset({"set", "sets", "data", "dataset", "split", "image", "images", "img", "imgs"})
OF_IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages"})
OF_MARKS = frozenset({"labels", "label", "annotations", "annotation", "masks", "mask"})
OF_ANOTHER = re.compile(
    r"(.*[^ _.-])[ _.-]+(?:masks?|seg|segmentation|gt|ground_?truth|annotations?|annotated|overlay|heatmap|depth"
    r"|copy|thumb|thumbnail|resized|flip|flipped|hflip|vflip|rot|rotated|aug|augmented)(?:[ _-]?\d+)?\.[^./]+$",
    re.IGNORECASE,
)
"""Matches the file name of a mask or an edited copy; the group is the name of the original, without its suffix."""
SHOWN = 5  # names of folders in a message


@dataclass(frozen=True)
class Doubt:
    """Folders that are probably not classes: what they look like instead, and what to do."""

    folders: tuple[str, ...]
    look_like: str
    remedy: str

    def __str__(self) -> str:
        look = "look" if len(self.folders) > 1 else "looks"
        classes = "classes" if len(self.folders) > 1 else "a class"
        what = f"{_listed(self.folders)} {look} like {self.look_like}, not {classes}"
        return f"{what}; {self.remedy}; --dataset imagefolder takes the outer folders as classes"

    def as_reading(self, account: Account) -> Account:
        """Return the account with a reading for these folders, which were taken as classes nevertheless."""
        taken = f"{_listed(self.folders)} taken as class{'es' if len(self.folders) > 1 else ''}"
        return account.reading(taken, other=f"as {self.look_like}", option="--data-root")


def doubt_about(root: Path) -> Doubt | None:
    """Return why the folders in ``root`` are probably not classes; None if they may be."""
    folders = [path.name for path in subfolders(root)]
    inner = {name: _folders_of_images(root / name) for name in folders}
    return (
        _marks(root, folders, inner)
        or _wrapping(root, folders, inner)
        or _splits(root, folders, inner)
        or _same_folders(root, folders, inner)
    )


def with_nested_folders(account: Account, names: Iterable[str]) -> Account:
    """Return the account with a reading for class folders that hold subfolders, which timm takes as the classes.

    Parameters
    ----------
    names
        The images' paths, which begin with their class.
    """
    inner: dict[str, set[str]] = {}
    for name in names:
        folder, _, rest = name.rpartition("/")[0].partition("/")
        inner.setdefault(folder, set()).add(rest)
    outer = sorted(name for name, below in inner.items() if len(below) > 1)
    if not outer:
        return account
    each = [f"{name}/{below}" for name in outer for below in sorted(inner[name]) if below]
    return account.reading(
        f"{_listed(outer)} taken as {'classes' if len(outer) > 1 else 'a class'}",
        other=f"the {counted(len(each), 'folder')} inside ({_listed(each)})",
        option="labels.csv",
    )


def with_masks_and_copies(account: Account, names: Sequence[str]) -> Account:
    """Return the account with a reading for images named as the mask or an edited copy of another one."""
    stems = {name.rpartition(".")[0] for name in names}
    found = []
    for name in names:
        named = OF_ANOTHER.match(name)
        if named is not None and named[1] in stems:
            found.append(name)
    if not found:
        return account
    return account.reading(
        f"{counted(len(found), 'image')} named as the mask or a copy of another ({_listed(found)}) used as images",
        other="left out",
        option="moving them",
    )


def holds_images(folder: Path) -> bool:
    """Return whether there is an image file at any depth."""
    return any(not exclusion_reason(name) for *_, names in os.walk(folder) for name in names)


def _folders_of_images(folder: Path) -> frozenset[str]:
    _, names, _ = next(os.walk(folder), ("", [], []))
    visible = (name for name in names if not is_ignored_folder(name))
    return frozenset(name for name in visible if holds_images(folder / name))


def _marks(root: Path, folders: Sequence[str], inner: Mapping[str, frozenset[str]]) -> Doubt | None:
    """Recognise images for detection or segmentation, with labels or masks in a folder beside them."""
    images = [name for name in folders if name.lower() in OF_IMAGES]
    marks = [name for name in folders if name.lower() in OF_MARKS]
    if not images or not marks:
        return None
    classes = inner[images[0]]
    remedy = "put the images into one folder for each class"
    if len(classes) > 1 and not any(_split_of(name) for name in classes):
        remedy = f"pass {root / images[0]}"
    return Doubt((images[0], marks[0]), "images and their marks", remedy)


def _wrapping(
    root: Path, folders: Sequence[str], inner: Mapping[str, frozenset[str]]
) -> Doubt | None:
    """Recognise a single folder around the classes."""
    if len(folders) != 1 or not inner[folders[0]]:
        return None
    path, names = root / folders[0], inner[folders[0]]
    while len(names) == 1 and (deeper := _folders_of_images(path / next(iter(names)))):
        path, names = path / next(iter(names)), deeper
    return Doubt((folders[0],), "a folder around the classes", f"pass {path}")


def _splits(
    root: Path, folders: Sequence[str], inner: Mapping[str, frozenset[str]]
) -> Doubt | None:
    """Recognise splits: two by their names, or one by its name and by being the only folder of folders."""
    split_of = {name: found for name in folders if (found := _split_of(name))}
    alike = [rest for _, rest in split_of.values()]
    splits = [name for name, (_, rest) in split_of.items() if alike.count(rest) > 1]
    if len(split_of) == 1 and sum(map(bool, inner.values())) == 1:
        splits = [name for name in split_of if len(inner[name]) > 1]
    if not splits:
        return None
    order = list(SPLITS)
    best = min(splits, key=lambda name: (len(inner[name]) < 2, order.index(split_of[name][0])))
    look_like = "splits" if len(splits) > 1 else "a split"
    return Doubt(tuple(splits), look_like, f"pass one, as {root / best}")


def _split_of(name: str) -> tuple[str, str] | None:
    """Return the split that a folder's name means, and its other words; splits that belong together share these."""
    spaced = re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = re.findall("[a-z]+", re.sub("h[eo]ld[ _-]out", "holdout", spaced))
    for split, of_split in SPLITS.items():
        for word in words:
            if re.fullmatch(f"(?:{of_split}){WITH_NOUN}", word):
                return split, " ".join(w for w in words if w != word and w not in NOUNS)
    return None


def _same_folders(
    root: Path, folders: Sequence[str], inner: Mapping[str, frozenset[str]]
) -> Doubt | None:
    """Recognise folders that hold the same folders: years, folds or sides of the same classes, or classes of splits."""
    sharing = _sharing(folders, inner)
    if not sharing:
        return None
    common = sorted(inner[sharing[0]])
    kinds = {name.lower() for name in common}
    if kinds & OF_IMAGES and kinds & OF_MARKS:
        look_like = f"folders of images and their marks ({_listed(common)})"
        return Doubt(sharing, look_like, "move the marks to another place")
    if all(_split_of(name) for name in common):
        look_like = f"folders of the splits {_listed(common)}"
        return Doubt(sharing, look_like, "make a folder of one split's classes")
    look_like = f"groups of the same classes ({_listed(common)})"
    return Doubt(sharing, look_like, f"pass one, as {root / sharing[-1]}")


def _sharing(folders: Sequence[str], inner: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """Return the folders, at least half of all, that hold mostly the same two or more folders."""
    of_several = [name for name in folders if len(inner[name]) > 1]
    if len(of_several) < 2 or 2 * len(of_several) < len(folders):
        return ()
    for name in of_several:
        alike = tuple(other for other in of_several if _are_alike(inner[name], inner[other]))
        if len(alike) > 1 and 2 * len(alike) >= len(folders):
            return alike
    return ()


def _are_alike(one: frozenset[str], other: frozenset[str]) -> bool:
    common = len(one & other)
    return common > 1 and 2 * common >= len(one | other)


def _listed(names: Iterable[str]) -> str:
    """Return the first names, and that there are more."""
    every = [printable(shortened(name, 30)) for name in names]
    return ", ".join(every[:SHOWN]) + (", ..." if len(every) > SHOWN else "")
