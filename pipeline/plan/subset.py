"""The images of a run: chosen classes and images without copies or damaged files, and the white level above 8 bits."""

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from time import monotonic
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import content_hash, write_json, write_text
from dsmi_zoo._util.text import counted, shown
from dsmi_zoo.data_catalog.datasets.base import NOTHING_LEFT_OUT, LabelledImages
from dsmi_zoo.data_catalog.datasets.class_order import class_orders
from dsmi_zoo.data_catalog.datasets.decoding import begins_as_image, is_jpeg, look, read_deep
from dsmi_zoo.data_catalog.datasets.deep_pixels import WHITE_16, is_ambiguous, white_level_request
from dsmi_zoo.data_catalog.datasets.folders import ImageFiles, copies, unreadable
from dsmi_zoo.data_catalog.datasets.imagenet import PRESETS
from dsmi_zoo.data_catalog.datasets.layout import (
    doubt_about,
    with_masks_and_copies,
    with_nested_folders,
)
from dsmi_zoo.data_catalog.datasets.names import OWN_IMAGES
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.sampling import Sample
from dsmi_zoo.data_catalog.datasets.subset import Subset, described, select_subset

from ..config.run import SubsetSettings

log = logging.getLogger(__name__)

COPIES = "with the same content as another image"
CONTRADICTORY = "with the same content as an image of another class"
UNDECODABLE = "that cannot be decoded"
CHECKED = "checked-2"  # change it when `read_image` refuses more
Item = TypeVar("Item")

OPTION = "--white"
THREADS = 4
QUIET_S, LINE_EVERY_S = 2, 30


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
        # Copies are removed before sampling; for a sample, only files of equal size and beginning are hashed.
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
    """Add the class order, and the ambiguities of the folders and of that order."""
    root, account = settings.data_root, subset.account
    names = subset.images.names
    if settings.dataset == "imagefolder" and root is not None:
        doubt = doubt_about(root)
        account = doubt.as_reading(account) if doubt else with_nested_folders(account, names)
    if settings.dataset in OWN_IMAGES:
        account = with_masks_and_copies(account, names)
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
    """Leave out images, and record that in the account.

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
        lost = NOTHING_LEFT_OUT.leaving_out(reason, _with_classes(images, of_class)).left_out[0]
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

    A note in the cache lists a subset's bad images. A later run tries only those again, because it may decode them.
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

    Classes are given by name; by number only if no class has a number as its name.

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
    """Split at commas outside quotes; the name of a single class may contain commas without quotes."""
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
    """Return the text on an unknown class, with the name that may be meant."""
    near = get_close_matches(name, number, n=1) or [
        known for known in number if name in known.split(",")
    ]
    if near:
        quotes = " (names with a comma need quotes)" if "," in near[0] else ""
        return f"{shown(name)}: did you mean {shown(near[0])}?{quotes}"
    known = ", ".join([*PRESETS, "all", *list(number)[:3]])
    return f"{shown(name)}; there are {known} ..."


class _Note(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeepImage(_Note):
    """An image of more than 8 bits; the fields but ``name`` are those of `DeepPixels`."""

    name: str
    greatest: float
    white: int
    is_float: bool
    stated: float | None = None
    is_tag: bool = False


class Headers(_Note):
    """Images of more than 8 bits, those of several pages or frames, and whether Pillow's reading is corrected."""

    deep: tuple[DeepImage, ...] = ()
    frames: tuple[str, ...] = ()
    is_mended: bool = False


def with_white(subset: Subset, option: float | None, cache: Path) -> Subset:
    """Return the subset with the white level for all its decodings; its digest changes only if a level is needed.

    Raises
    ------
    InputError
        When the images have more than 8 bits, and their white level is ambiguous.
    """
    images = subset.images
    if not isinstance(images, ImageFiles):
        if option is not None:
            log.warning(f"{OPTION} {option:g} changes nothing: {images.name} has 8 bits")
        return subset
    headers = _headers(images, cache / "white" / f"{subset.digest}.json")
    digest, account = subset.digest, subset.account
    if headers.is_mended:
        digest = content_hash(digest, "mended")
    if headers.frames:
        several = counted(len(headers.frames), "image")
        taken = f"of several pages or frames in {several} ({headers.frames[0]}), the first is read"
        account = account.reading(taken, other="the others", option="a file for each")
    if headers.deep:
        white = white_of(headers.deep, option, images.root.name)
        images = replace(images, white=white)
        digest = content_hash(digest, "white", white)
        if white is not None and option is None:
            kind = "float" if any(image.is_float for image in headers.deep) else "16-bit"
            taken = f"{kind} images are read with white at {white:,.0f}"
            account = account.reading(taken, other="at another level", option=OPTION)
    elif option is not None:
        log.warning(f"{OPTION} {option:g} changes nothing: no image has more than 8 bits")
    return replace(subset, images=images, digest=digest, account=account)


def white_of(deep: Sequence[DeepImage], option: float | None, where: str) -> float | None:
    """Return the white level of all these images; None if each file states its own.

    Raises
    ------
    InputError
        When several levels fit.
    """
    if option is not None:
        _log_clipped(deep, option)
        return option
    stated: dict[float, str] = {}
    for image in deep:
        if image.stated is not None:
            stated.setdefault(image.stated, image.name)
    # Images with greater values are refused when they are decoded.
    silent = [image for image in deep if image.stated is None and image.greatest <= WHITE_16]
    if not silent:
        if len(stated) > 1 and any(image.is_tag for image in deep):
            raise InputError(
                f"{where}: the tags of its files differ ({_levels(stated)}): say what white is with {OPTION}"
            )
        return None
    level = _level_that_fits(silent, where)
    if stated and set(stated) != {level}:
        raise InputError(
            f"{where}: some files say what white is ({_levels(stated)}), {len(silent)} of {len(deep)} do not "
            f"({silent[0].name}): say it with {OPTION}, or convert them to one depth"
        )
    return level


def _level_that_fits(silent: Sequence[DeepImage], where: str) -> float:
    kinds = {image.is_float: image.name for image in silent}
    if len(kinds) > 1:
        raise InputError(
            f"{where}: {kinds[False]} has integers of more than 8 bits, {kinds[True]} floats: convert them to one type"
        )
    top = max(silent, key=lambda image: image.greatest)
    if is_ambiguous(top.greatest, top.is_float):
        what = counted(len(silent), "image")
        is_one = len(silent) == 1
        if top.is_float:
            said = f"of floats in {where} {'has' if is_one else 'have'} values up to {top.greatest:,.6g}"
        else:
            verb = "reaches" if is_one else "reach"
            said = f"of 16 bits in {where} {verb} only {top.greatest:,.0f} of {top.white:,}"
        asked = white_level_request(top.greatest, top.white, top.is_float)
        raise InputError(f"{what} {said} ({top.name}): {asked}")
    return float(max(image.white for image in silent))


def _levels(stated: Mapping[float, str]) -> str:
    return ", ".join(f"{level:,.6g} in {name}" for level, name in list(stated.items())[:3])


def _log_clipped(deep: Sequence[DeepImage], white: float) -> None:
    brighter = [image for image in deep if image.greatest > white]
    if brighter:
        top = max(brighter, key=lambda image: image.greatest)
        log.warning(
            f"values above {OPTION} {white:g} are read as white: {len(brighter):,} of "
            f"{counted(len(deep), 'image')} of more than 8 bits, up to {top.greatest:,.6g} in {top.name}"
        )


def _headers(images: ImageFiles, note: Path) -> Headers:
    """Read the headers of the images, and decode those of more than 8 bits; a note saves the next run that work."""
    candidates = [name for name in images.names if not is_jpeg(f"{images.root}/{name}")]
    if not candidates:
        return Headers()
    try:
        return Headers.model_validate_json(note.read_bytes())
    except (OSError, ValidationError):
        pass
    with ThreadPoolExecutor(THREADS) as pool:
        looks = list(pool.map(lambda name: look(images.root / name), candidates))
        deep_names = [name for name, seen in zip(candidates, looks, strict=True) if seen.is_deep]
        found = pool.map(lambda name: _deep_image(images.root, name), deep_names)
        deep = [image for image in _logged(found, len(deep_names)) if image is not None]
    frames = [name for name, seen in zip(candidates, looks, strict=True) if seen.has_frames]
    is_mended = any(seen.is_mended for seen in looks)
    headers = Headers(deep=tuple(deep), frames=tuple(frames), is_mended=is_mended)
    write_text(note, headers.model_dump_json())
    return headers


def _deep_image(root: Path, name: str) -> DeepImage | None:
    """Return the facts about an image of more than 8 bits; None for a bad image, which its decoding will report."""
    try:
        pixels = read_deep(root / name)
    except InputError:
        return None
    if pixels is None or not (pixels.values.min(initial=0) >= 0 and np.isfinite(pixels.greatest)):
        return None
    return DeepImage(
        name=name,
        greatest=pixels.greatest,
        white=pixels.white,
        is_float=pixels.is_float,
        stated=pixels.stated,
        is_tag=pixels.is_tag,
    )


def _logged(items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yield the items, and log the progress if they take long."""
    next_line = monotonic() + QUIET_S
    for number, item in enumerate(items, start=1):
        if monotonic() > next_line:
            log.info(
                f"looking for the greatest value of the images of more than 8 bits: {number:,} of {total:,}"
            )
            next_line = monotonic() + LINE_EVERY_S
        yield item
