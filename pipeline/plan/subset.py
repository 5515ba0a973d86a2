"""The images of a run: the classes and images that its settings choose, without copies and damaged files."""

import csv
import json
import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_json
from dsmi_zoo._util.text import shown
from dsmi_zoo.data_catalog.datasets.account import WHOLE
from dsmi_zoo.data_catalog.datasets.base import LabelledImages
from dsmi_zoo.data_catalog.datasets.class_order import class_orders
from dsmi_zoo.data_catalog.datasets.decoding import begins_as_image
from dsmi_zoo.data_catalog.datasets.folders import ImageFiles, copies, unreadable
from dsmi_zoo.data_catalog.datasets.imagenet import PRESETS
from dsmi_zoo.data_catalog.datasets.layout import (
    doubt_about,
    with_named_after_others,
    with_nested_folders,
)
from dsmi_zoo.data_catalog.datasets.names import OWN_IMAGES
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.sampling import Sample
from dsmi_zoo.data_catalog.datasets.subset import Subset, described, select_subset

from ..config.run import SubsetSettings
from .white import with_white

log = logging.getLogger(__name__)

COPIES = "with the same content as another image"
CONTRADICTORY = "with the same content as an image of another class"
UNDECODABLE = "that cannot be decoded"
CHECKED = "checked-2"  # another name when `read_image` refuses more


def open_subset(settings: SubsetSettings, repeats: int, cache: Path) -> Subset:
    """Open the images that the settings choose, without exact copies, and without bad images if the settings say so.

    Raises
    ------
    InputError
        For an unknown data set, class or level of white, a wrong folder or order of classes, too few images, or a
        class that would be empty.
    """
    images = open_dataset(
        settings.dataset, settings.data_root, allow_train_images=settings.allow_train_images
    )
    classes = class_numbers(settings.classes, images)
    if (
        settings.dataset in OWN_IMAGES and not settings.keep_copies
    ):  # published sets stay as they are
        assert isinstance(images, ImageFiles)
        # The images of a sample are those of a run that has looked for copies already.
        is_sampled = settings.images_per_class is not None
        images = _without_copies(images, classes, is_sampled=is_sampled)
    remaining = images
    bad: set[str] = set()
    good: set[str] = set()
    while True:
        subset = select_subset(
            remaining,
            classes=classes,
            images_per_class=settings.images_per_class,
            sample=Sample.of(settings.sample) if settings.sample else None,
            repeats=repeats,
            seed=settings.seed,
        )
        if not settings.skip_bad_images or not isinstance(images, ImageFiles):
            break
        found = _bad_images(subset, good, cache)
        if not found:
            break
        bad |= found
        remaining = _leave_out(
            images, bad, UNDECODABLE, "repair them, or choose the other classes with --classes"
        )
    return with_white(_with_readings(subset, settings), settings.white, cache)


def _with_readings(subset: Subset, settings: SubsetSettings) -> Subset:
    """Add the order of the classes, and what is ambiguous in the folders and in that order."""
    root, account = settings.data_root, subset.account
    names = subset.images.names
    if settings.dataset == "imagefolder" and root is not None:
        doubt = doubt_about(root)
        account = doubt.as_reading(account) if doubt else with_nested_folders(account, names)
    if settings.dataset in OWN_IMAGES:
        account = with_named_after_others(account, names)
    orders, account = class_orders(subset.images, root, account, settings.class_order)
    return replace(subset, orders=orders, account=account)


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
    return [described(images, int(number)) for number in numbers]


def _bad_images(subset: Subset, good: set[str], cache: Path) -> set[str]:
    """Return the names of chosen images that cannot be decoded; add the others to ``good``, which are not read again.

    A note in the cache holds the bad images of a subset, so that a later run decodes only those: it may be able to.
    """
    images = subset.images
    assert isinstance(images, ImageFiles)
    note = cache / CHECKED / subset.digest
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
    """Return the bad images that a note holds; None without one."""
    try:
        return set(json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def class_numbers(classes: str | None, images: LabelledImages) -> tuple[int, ...] | None:
    """Return the labels of a preset, or of a list of classes by name or number.

    A class is meant by its name; by its number only where no class is named by a number.

    Raises
    ------
    InputError
        For an unknown class, or text that can be read in two ways.
    """
    number = {name: label for label, name in images.class_names.items()}
    if classes is None or (classes == "all" and classes not in number):
        return None
    if classes in (*PRESETS, "all") and classes in number:
        raise InputError(
            f"--classes: {classes} is a class of {images.name} and a choice of several: "
            f"write '\"{classes}\"' for the class, or rename it"
        )
    if classes in PRESETS:
        if images.classifier_width != 1000:
            raise InputError(
                f"--classes {classes} names ImageNet classes; {images.name} has others"
            )
        return PRESETS[classes]
    if not any(name.isdecimal() for name in number):
        number |= {str(label): label for label in images.class_names}
    chosen = _class_list(classes, number)
    for name in chosen:
        if name not in number:
            raise InputError(f"--classes: {images.name} has no class {_unknown(name, number)}")
    return tuple(number[name] for name in chosen)


def _class_list(classes: str, number: Mapping[str, int]) -> list[str]:
    """Split at the commas outside quotes; a class's name that holds commas may stand alone without them."""
    try:
        parts = next(csv.reader([classes], skipinitialspace=True, strict=True), [])
    except csv.Error:
        raise InputError(f"--classes {shown(classes)}: a quote is not closed") from None
    parts = [part.strip() for part in parts]
    if classes not in number or parts == [classes]:
        return parts
    if all(part in number for part in parts):
        raise InputError(
            f"--classes {shown(classes)} is one class and {len(parts)} classes: "
            f"write '\"{classes}\"' for the one, or change their order"
        )
    return [classes]


def _unknown(name: str, number: Mapping[str, int]) -> str:
    """Return an unknown class as text, and which may be meant."""
    near = get_close_matches(name, number, n=1) or [
        known for known in number if name in known.split(",")
    ]
    if near:
        quotes = " (names with a comma need quotes)" if "," in near[0] else ""
        return f"{shown(name)}: did you mean {shown(near[0])}?{quotes}"
    known = ", ".join([*PRESETS, "all", *list(number)[:3]])
    return f"{shown(name)}; there are {known} ..."
