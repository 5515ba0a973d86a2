"""A folder of images with a table of their labels."""

from pathlib import Path, PurePath

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.tables import read_table
from dsmi_zoo._util.text import natural_order, shortened, shown

from .image_files import Listing


def list_labels_file(root: Path) -> Listing:
    """List a folder of images with a table of the columns ``image`` (a path in the folder) and ``label``.

    Raises
    ------
    InputError
        Names the table's line that is wrong.
    """
    table = root / "labels.csv"
    if not table.is_file():
        raise InputError(f"{root}: holds no labels.csv with the columns image,label")
    columns, rows = read_table(table, "labels of images")
    if not {"image", "label"} <= set(columns):
        raise InputError(
            f"{table}: needs the columns image,label; it has {shortened(','.join(columns), 300)}"
        )
    resolved_root = root.resolve()
    names: list[str] = []
    classes: list[str] = []
    lines: dict[PurePath, int] = {}
    for line, cells in rows:
        where = f"{table}, line {line}"
        name, label = cells["image"], cells["label"]
        if not name or not label:
            raise InputError(f"{where}: an image or its label is missing")
        if not is_file(resolved_root / name):
            raise InputError(f"{where}: {shown(name)} is not a file")
        if not (resolved_root / name).resolve().is_relative_to(resolved_root):
            raise InputError(f"{where}: {shown(name)} lies outside the folder")
        normalised = PurePath(name)  # drops the dot of ./name
        if normalised in lines:
            raise InputError(f"{where}: {shown(name)} is already in line {lines[normalised]}")
        lines[normalised] = line
        names.append(name)
        classes.append(label)
    class_names = sorted(set(classes), key=natural_order)
    number = {name: label for label, name in enumerate(class_names)}
    labels = np.array([number[c] for c in classes], dtype=np.int64)
    return Listing(tuple(names), labels, class_names)
