"""The images of a run: the classes and images that its settings choose, without copies and damaged files."""

import json
import logging
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_json
from dsmi_zoo._util.text import shown
from dsmi_zoo.data_catalog.datasets.account import WHOLE
from dsmi_zoo.data_catalog.datasets.base import LabelledImages
from dsmi_zoo.data_catalog.datasets.decoding import begins_as_image
from dsmi_zoo.data_catalog.datasets.image_files import ImageFiles, copies, unreadable
from dsmi_zoo.data_catalog.datasets.imagenet import PRESETS
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import Subset, select_subset

from ..config.run import SubsetSettings

log = logging.getLogger(__name__)

OWN_IMAGES = ("imagefolder", "csv")  # published data sets are used as they are
COPIES = "exact copies of another image"
CONTRADICTORY = "exact copies in two classes"
UNDECODABLE = "that cannot be decoded"


def open_subset(settings: SubsetSettings, repeats: int, cache: Path) -> Subset:
    """Open the images that the settings choose, without exact copies, and without bad images if the settings say so.

    Raises
    ------
    InputError
        For an unknown data set or class, a wrong folder, too few images, or a class that would be empty.
    """
    images = open_dataset(
        settings.dataset, settings.data_root, allow_train_images=settings.allow_train_images
    )
    classes = _class_numbers(settings.classes, images)
    if settings.dataset in OWN_IMAGES and not settings.keep_copies:
        assert isinstance(images, ImageFiles)
        images = _without_copies(images, classes, is_sampled=settings.images_per_class is not None)
    remaining = images
    bad: set[str] = set()
    good: set[str] = set()
    while True:
        subset = select_subset(
            remaining,
            classes=classes,
            images_per_class=settings.images_per_class,
            repeats=repeats,
            seed=settings.seed,
        )
        if not settings.skip_bad_images or not isinstance(images, ImageFiles):
            return subset
        found = _bad_images(subset, good, cache)
        if not found:
            return subset
        bad |= found
        remaining = _leave_out(
            images, bad, UNDECODABLE, "repair them, or choose the other classes with --classes"
        )


def _without_copies(
    images: ImageFiles, classes: Sequence[int] | None, *, is_sampled: bool
) -> ImageFiles:
    """Leave out all but the first of the files with the same bytes, and all of them if their classes differ.

    A copy would give the probe and the nearest neighbours the answer, or contradict it. Files that are not images,
    such as empty ones, are left to ``--skip-bad-images``.
    """
    chosen = np.arange(len(images.names))
    if classes is not None:
        chosen = np.flatnonzero(np.isin(images.labels, list(classes)))
    by_name = sorted(chosen.tolist(), key=lambda number: images.names[number])
    again: set[str] = set()
    contradictory: set[str] = set()
    for group in copies(images, by_name, few_are_hashed=is_sampled):
        if not begins_as_image(images.path(group[0])):
            continue
        names = [images.names[number] for number in group]
        if len(set(images.labels[group].tolist())) == 1:
            again.update(names[1:])
        else:
            contradictory.update(names)
    images = _leave_out(images, again, COPIES, "")
    remedy = "leave each image in one class, or keep all with --keep-copies"
    return _leave_out(images, contradictory, CONTRADICTORY, remedy)


def _leave_out(images: ImageFiles, names: Set[str], reason: str, remedy: str) -> ImageFiles:
    """Leave out images, and note it in the account.

    Raises
    ------
    InputError
        When a class would be empty; ``remedy`` says what to do.
    """
    if not names:
        return images
    is_left_out = np.array([name in names for name in images.names])
    left_out = np.flatnonzero(is_left_out)
    account = images.account.leaving_out(reason, _with_classes(images, left_out))
    kept = replace(images.take(np.flatnonzero(~is_left_out)), account=account)
    empty = sorted(set(images.labels.tolist()) - set(kept.labels.tolist()))
    if empty:
        of_class = left_out[images.labels[left_out] == empty[0]]
        lost = WHOLE.leaving_out(reason, _with_classes(images, of_class)).left_out[0]
        name = shown(images.class_names[empty[0]])
        raise InputError(
            f"{images.root}: class {name} would be left without images: {lost}; {remedy}"
        )
    return kept


def _with_classes(images: ImageFiles, numbers: np.ndarray) -> list[str]:
    """Return names of images, with their classes unless those are their folders."""
    described = []
    for number in numbers:
        name, of_class = images.names[number], images.class_names[int(images.labels[number])]
        is_in_folder = name.startswith(f"{of_class}/")
        described.append(name if is_in_folder else f"{name} of class {of_class}")
    return described


def _bad_images(subset: Subset, good: set[str], cache: Path) -> set[str]:
    """Return the names of chosen images that cannot be decoded; add the others to ``good``, which are not read again.

    A note in the cache holds the bad images of a subset, so that a later run decodes only those: it may be able to.
    """
    images = subset.images
    assert isinstance(images, ImageFiles)
    note = cache / "checked" / subset.digest
    noted = _noted_bad(note)
    unsure = [
        number
        for number, name in enumerate(images.names)
        if name not in good and (noted is None or name in noted)
    ]
    problems = unreadable([images.path(number) for number in unsure])
    for problem in problems.values():
        log.debug(problem)
    bad = {images.names[unsure[place]] for place in problems}
    good.update(set(images.names) - bad)
    if noted is None:
        write_json(note, sorted(bad))
    return bad


def _noted_bad(note: Path) -> set[str] | None:
    """Return the bad images that a note holds; None without one. Early versions noted only that there are none."""
    try:
        text = note.read_text(encoding="utf-8")
        return set(json.loads(text)) if text else set()
    except (OSError, ValueError, TypeError):
        return None


def _class_numbers(classes: str | None, images: LabelledImages) -> tuple[int, ...] | None:
    """Return the labels of a preset, or of a list of classes by name or number."""
    if classes is None or classes == "all":
        return None
    if classes in PRESETS:
        if images.classifier_width != 1000:
            raise InputError(
                f"--classes {classes} names ImageNet classes; {images.name} has others"
            )
        return PRESETS[classes]
    number = {name: label for label, name in images.class_names.items()}
    chosen = []
    for part in (p.strip() for p in classes.split(",")):
        label = number.get(part, _as_label(part))
        if label not in images.class_names:
            known = ", ".join([*PRESETS, "all", *list(number)[:3]])
            raise InputError(
                f"--classes: {images.name} has no class {shown(part)}; there are {known} ..."
            )
        chosen.append(label)
    return tuple(chosen)


def _as_label(text: str) -> int:
    """Return a class's number, or -1 if it is not one; Python cannot read numbers of thousands of digits."""
    return int(text) if text.isdecimal() and len(text) < 10 else -1
