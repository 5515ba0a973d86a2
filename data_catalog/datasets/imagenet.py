"""ImageNet's validation images in the three forms that people have them in."""

import importlib.util
import re
from functools import cache
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.tables import read_table
from dsmi_zoo._util.text import shown

from .folders import SUFFIXES, ImageFiles, image_names, refuse_odd_name

# Classes of fastai's easier and harder ten, of which the paper takes 50 validation images each.
IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
IMAGEWOOF = (193, 182, 258, 162, 155, 167, 159, 273, 207, 229)
PRESETS = {
    "imagenette": IMAGENETTE,
    "imagewoof": IMAGEWOOF,
    "imagenette+imagewoof": (*IMAGENETTE, *IMAGEWOOF),
}

# Of its training images, by channel in 0 to 1: what most networks are fed by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TRAINING_IMAGE = re.compile(r"n\d{8}_")
KAGGLE_TABLE = "LOC_val_solution.csv"


@cache
def synsets() -> tuple[str, ...]:
    """The 1,000 synsets in the order of the classifiers' outputs, from the list that timm carries."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("timm is not installed: `pip install timm`")
    path = Path(spec.submodule_search_locations[0]) / "data" / "_info" / "imagenet_synsets.txt"
    return tuple(path.read_text(encoding="utf-8").split())


def open_imagenet(root: Path, allow_train_images: bool = False) -> ImageFiles:
    """The images with ImageNet's class indices as labels, so a classifier's argmax is a label.

    Parameters
    ----------
    root
        A torchvision root (with ``val/`` of synset folders), a folder of synset folders, or a folder of Kaggle's
        with ``LOC_val_solution.csv`` and the images flat in it, in ``val/`` or in ``ILSVRC/Data/CLS-LOC/val/``.
    allow_train_images
        Accept files named like ImageNet's training images (``n########_*``).

    Raises
    ------
    InputError
        When the folder has none of these forms, or training images among its files.
    """
    if (root / KAGGLE_TABLE).is_file():
        names, labels = _kaggle(root)
    else:
        names, labels = _synset_folders(root)
    training = [name for name in names if TRAINING_IMAGE.match(Path(name).name)]
    if training and not allow_train_images:
        raise InputError(
            f"{root}: {len(training)} of {len(names)} files are ImageNet training images by their names, such as "
            f"{training[0]}; models have seen them (--allow-train-images takes them all the same)"
        )
    name = "imagenet" if not training else "imagenet (with training images)"
    used = {int(label): synsets()[label] for label in np.unique(labels)}
    return ImageFiles(name, root, names, labels, used, classifier_width=1000)


def _synset_folders(root: Path) -> tuple[tuple[str, ...], np.ndarray]:
    index = {synset: label for label, synset in enumerate(synsets())}
    folder = root / "val" if (root / "val").is_dir() else root
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    strange = [p.name for p in classes if p.name not in index]
    if not classes or strange:
        what = f"{shown(strange[0])} is no ImageNet synset" if strange else "it holds no folders"
        raise InputError(
            f"{folder}: {what}; the data set imagenet needs folders such as {synsets()[0]} "
            f"(or Kaggle's {KAGGLE_TABLE}); use --dataset imagefolder for classes of your own"
        )
    names: list[str] = []
    labels: list[int] = []
    for path in classes:
        images = list(image_names(path, root))
        if not images:
            raise InputError(f"{path}: the class folder holds no image")
        names += images
        labels += [index[path.name]] * len(images)
    return tuple(names), np.array(labels, dtype=np.int64)


def _kaggle(root: Path) -> tuple[tuple[str, ...], np.ndarray]:
    index = {synset: label for label, synset in enumerate(synsets())}
    folders = (root / "ILSVRC" / "Data" / "CLS-LOC" / "val", root / "val", root)
    folder = next(f for f in folders if f.is_dir())
    files = {p.stem: p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES}
    names: list[str] = []
    labels: list[int] = []
    columns, rows = read_table(root / KAGGLE_TABLE, "Kaggle's table of labels")
    if not {"ImageId", "PredictionString"} <= set(columns):
        raise InputError(f"{root / KAGGLE_TABLE}: needs the columns ImageId,PredictionString")
    for line, cells in rows:
        image, synset = cells["ImageId"], cells["PredictionString"].split(" ")[0]
        if synset not in index:
            raise InputError(
                f"{root / KAGGLE_TABLE}, line {line}: {shown(synset)} is no ImageNet synset"
            )
        if image in files:
            file = files.pop(image)  # each image counts once
            names.append(file.relative_to(root).as_posix())
            labels.append(index[synset])
    for name in names:
        refuse_odd_name(name, root)
    if not names:
        raise InputError(f"{folder}: holds none of the images that {KAGGLE_TABLE} names")
    return tuple(names), np.array(labels, dtype=np.int64)
