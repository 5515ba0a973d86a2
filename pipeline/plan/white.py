"""The white of images of more than 8 bits: one level for all images of a run.

The option ``--white`` decides, else what the files say, else their greatest value if only one level fits it.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import content_hash, write_text
from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.datasets.decoding import is_jpeg, look, read_deep
from dsmi_zoo.data_catalog.datasets.deep_pixels import WHITE_16, is_ambiguous, question
from dsmi_zoo.data_catalog.datasets.folders import ImageFiles
from dsmi_zoo.data_catalog.datasets.subset import Subset

log = logging.getLogger(__name__)

Item = TypeVar("Item")

OPTION = "--white"
THREADS = 4
QUIET_S, LINE_EVERY_S = 2, 30


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
    """Return the subset with the level of white for all its decodings; its digest changes only where it is needed.

    Raises
    ------
    InputError
        When the images have more than 8 bits, and nothing decides.
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
    """Return the level of white of all these images; None if each file says its own.

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
    # Greater values are refused when they are decoded.
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
        asked = question(top.greatest, top.white, top.is_float)
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
    """Look at the headers of the images, and decode those of more than 8 bits; a note spares the next run that."""
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
    """Return what is to be known of an image of more than 8 bits; None if it is bad, which its decoding will say."""
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
    """Pass the items on, and log how many there are if that takes long."""
    next_line = monotonic() + QUIET_S
    for number, item in enumerate(items, start=1):
        if monotonic() > next_line:
            log.info(
                f"looking for the greatest value of the images of more than 8 bits: {number:,} of {total:,}"
            )
            next_line = monotonic() + LINE_EVERY_S
        yield item
