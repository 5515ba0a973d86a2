"""ImageNet's validation images, in three common layouts."""

import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.tables import read_table
from dsmi_zoo._util.text import printable, shown

from .base import NOTHING_LEFT_OUT, Account
from .folders import ImageFiles, images_by_folder, refuse_odd_name, subfolders, suffixes

# fastai's ten easier and ten harder classes; the paper takes 50 validation images of each.
IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
IMAGEWOOF = (193, 182, 258, 162, 155, 167, 159, 273, 207, 229)
PRESETS = {
    "imagenette": IMAGENETTE,
    "imagewoof": IMAGEWOOF,
    "imagenette+imagewoof": (*IMAGENETTE, *IMAGEWOOF),
}

# Mean and standard deviation of the training images per channel, pixels in [0, 1]; most networks normalise with these.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TRAINING_IMAGE = re.compile(r"n\d{8}_")
KAGGLE_TABLE = "LOC_val_solution.csv"


@cache
def synsets() -> tuple[str, ...]:
    """Return the 1,000 synsets in the order of a classifier's outputs, from the list in timm."""
    return tuple(_list_in_timm("imagenet_synsets.txt").split())


def imagenet_numbers(names: Sequence[str]) -> tuple[int, ...] | None:
    """Return the class indices of 1,000 names that are ImageNet's words for its classes; -1 for an unclear name.

    Return None unless most names are such words, as in folders ``tench``, ``goldfish`` and ``great_white_shark``.
    """
    if len(names) != len(synsets()):
        return None
    words_of = dict(
        line.split("\t") for line in _list_in_timm("imagenet_synset_to_lemma.txt").splitlines()
    )
    numbers_of: dict[str, set[int]] = {}
    for number, synset in enumerate(synsets()):
        for word in (words_of[synset], *words_of[synset].split(", ")):
            numbers_of.setdefault(_as_words(word), set()).add(number)
    numbers = []
    for name in names:
        found = numbers_of.get(_as_words(name), set())
        numbers.append(next(iter(found)) if len(found) == 1 else -1)
    return tuple(numbers) if 2 * numbers.count(-1) < len(names) else None


def _as_words(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.lower()).strip()


def _list_in_timm(name: str) -> str:
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("timm is not installed: `pip install timm`")
    path = Path(spec.submodule_search_locations[0]) / "data" / "_info" / name
    return path.read_text(encoding="utf-8")


def open_imagenet(root: Path, allow_train_images: bool = False) -> ImageFiles:
    """Open the images, labelled by ImageNet's class indices, so that a classifier's argmax is a label.

    Parameters
    ----------
    root
        A torchvision root (``val/`` holds synset folders), a folder of synset folders, or Kaggle's folder, with
        ``LOC_val_solution.csv`` and the images beside it, in ``val/`` or in ``ILSVRC/Data/CLS-LOC/val/``.
    allow_train_images
        Accept files with names of ImageNet's training images (``n########_*``).

    Raises
    ------
    InputError
        When the folder has none of these forms, or holds training images.
    """
    if (root / KAGGLE_TABLE).is_file():
        names, labels, account = _kaggle(root)
    else:
        names, labels, account = _synset_folders(root)
    training = [name for name in names if TRAINING_IMAGE.match(Path(name).name)]
    if training and not allow_train_images:
        raise InputError(
            f"{root}: {len(training)} of {len(names)} files are ImageNet training images by their names, such as "
            f"{training[0]}; models have seen them (use --allow-train-images to include them anyway)"
        )
    name = "imagenet" if not training else "imagenet (with training images)"
    used = {int(label): synsets()[label] for label in np.unique(labels)}
    return ImageFiles(name, root, names, labels, used, classifier_width=1000, account=account)


def _synset_folders(root: Path) -> tuple[tuple[str, ...], np.ndarray, Account]:
    folder = root / "val" if (root / "val").is_dir() else root
    folders = subfolders(folder)
    unknown = [path.name for path in folders if path.name not in synsets()]
    if not folders or unknown:
        what = (
            f"{shown(unknown[0])} is not an ImageNet synset" if unknown else "it holds no folders"
        )
        raise InputError(
            f"{folder}: {what}; the data set imagenet needs folders such as {synsets()[0]} "
            f"(or Kaggle's {KAGGLE_TABLE}); use --dataset imagefolder for classes of your own"
        )
    names, numbers, account = images_by_folder(folders, root)
    labels = np.array([synsets().index(path.name) for path in folders])
    return names, labels[numbers], account


def _kaggle(root: Path) -> tuple[tuple[str, ...], np.ndarray, Account]:
    label_of = {synset: label for label, synset in enumerate(synsets())}
    folders = (root / "ILSVRC" / "Data" / "CLS-LOC" / "val", root / "val", root)
    folder = next(f for f in folders if f.is_dir())
    files = {p.stem: p for p in folder.iterdir() if p.suffix.lower() in suffixes()}
    table = root / KAGGLE_TABLE
    columns, rows = read_table(table, "Kaggle's table of labels")
    if not {"ImageId", "PredictionString"} <= set(columns):
        raise InputError(f"{table}: needs the columns ImageId,PredictionString")
    names: list[str] = []
    labels: list[int] = []
    for line, cells in rows:
        image, synset = cells["ImageId"], cells["PredictionString"].split(" ")[0]
        if synset not in label_of:
            raise InputError(f"{table}, line {line}: {shown(synset)} is not an ImageNet synset")
        if image in files:
            name = files.pop(image).relative_to(root).as_posix()  # each image counts once
            refuse_odd_name(name, root)
            names.append(name)
            labels.append(label_of[synset])
    if not names:
        raise InputError(f"{folder}: holds none of the images that {KAGGLE_TABLE} names")
    unlisted = sorted(printable(path.relative_to(root).as_posix()) for path in files.values())
    account = NOTHING_LEFT_OUT.leaving_out(f"not in {KAGGLE_TABLE}", unlisted)
    return tuple(names), np.array(labels, dtype=np.int64), account
