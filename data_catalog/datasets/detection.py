"""Which data set a folder holds, by what lies in it."""

from pathlib import Path

from dsmi_zoo._util.errors import InputError

from .imagenet import KAGGLE_TABLE, synsets

TORCHVISION_FOLDERS = {
    "cifar-10-batches-py": "cifar10",
    "MNIST": "mnist",
    "FashionMNIST": "fashion",
    "stl10_binary": "stl10",
}
SPLITS = {"train", "training", "val", "valid", "validation", "test"}


def dataset_in(root: Path) -> str:
    """The name of the data set that a folder holds: a table of labels, a folder for each class, or a published set.

    Raises
    ------
    InputError
        For what is no folder, or one of no known form.
    """
    if not root.is_dir():
        raise InputError(f"--data-root {root} is no folder")
    if (root / "labels.csv").is_file():
        return "csv"
    if (root / KAGGLE_TABLE).is_file():
        return "imagenet"
    folders = {
        path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    }
    for folder, dataset in TORCHVISION_FOLDERS.items():
        if folder in folders:
            return dataset
    classes = folders
    if "val" in folders:
        classes = {path.name for path in (root / "val").iterdir() if path.is_dir()}
    if classes and classes <= set(synsets()):
        return "imagenet"
    if folders and folders <= SPLITS:
        raise InputError(
            f"{root}: {', '.join(sorted(folders))} are splits, not classes; pass one, as {root / max(folders)}"
        )
    if folders:
        return "imagefolder"
    raise InputError(
        f"{root}: holds neither a folder of images for each class nor a labels.csv of the columns image,label; "
        "say with --dataset what it is"
    )
