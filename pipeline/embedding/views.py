"""Views: the subset's images, cropped and resized once for each distinct preprocessing, shared by all models."""

import logging
import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from dsmi_zoo._util.errors import DamagedFile, InputError
from dsmi_zoo._util.files import (
    NO_SPACE,
    damage,
    disk_full,
    make_unless_intact,
    move_checksummed,
    remove_checksummed,
)
from dsmi_zoo._util.hashing import content_hash
from dsmi_zoo._util.text import size_in_words
from dsmi_zoo.data_catalog.datasets.base import Part
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import Subset, select_subset
from dsmi_zoo.data_catalog.models.entry import Preprocessing

from .view_file import StoredView, ViewWriter, open_stored

log = logging.getLogger(__name__)

CLUSTER_SIDE = 64  # the paper's script shrinks the inputs to 64 x 64 before it clusters them
PAPER_SCALE = (0.6, 1.6)  # of the paper's random crops
ROWS_AT_ONCE = 64  # of a view in memory
# Bytes; a view beyond this that does not fit is its entry's fault, not the disk's.
LARGE_VIEW = 20 * 10**9


class ViewTooLarge(InputError):
    """A view that the disk has no room for, because its images are very large or very many."""


def view_path(cache: Path, subset_digest: str, img_size: int, preprocessing: Preprocessing) -> Path:
    """Where the view of a subset stands; mean and std are no part of it."""
    crop = preprocessing.model_dump(include={"crop_pct", "crop_mode", "interpolation"})
    return cache / "views" / f"{content_hash(subset_digest, img_size, crop)}.npy"


def make_view(
    path: Path,
    subset: Subset,
    img_size: int,
    preprocessing: Preprocessing,
    *,
    threads: int = 1,
    also: Callable[[int, Image.Image], object] = lambda number, image: None,
) -> Path:
    """Write the view as uint8 [n * repeats, h, w, 3], unless it is there, and return its path.

    Pixels are those of timm's evaluation transform (``timm.data.create_transform``) before normalisation; the crop
    mode ``paper`` is the paper's random crop, seeded by image and repeat. However many processes ask for it at the
    same moment, one makes it and the others wait.

    Parameters
    ----------
    threads
        Decode and crop so many images at once.
    also
        Called with each image's number and the decoded image, when the view is made.

    Raises
    ------
    InputError
        Names an image that cannot be decoded.
    ViewTooLarge
        When the disk has no room for so large a view.
    DiskFull
        When it has no room for one of an ordinary size.
    """

    def make() -> None:
        # By a process that was killed; this one has the lock.
        for left in path.parent.glob(f".{path.stem}.*.tmp"):
            left.unlink(missing_ok=True)
        log.debug("making the view %s: %s images at %s pixels", path, len(subset.labels), img_size)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
        try:
            with _room(temporary, path, subset, img_size) as view:
                _fill(view, subset, img_size, preprocessing, threads, also)
            move_checksummed(temporary, path)
        except OSError as error:
            raise disk_full(path) if error.errno in NO_SPACE else error from None
        finally:
            temporary.unlink(missing_ok=True)

    make_unless_intact(path, "the view", "making it again", make)
    return path


def _fill(
    view: ViewWriter,
    subset: Subset,
    img_size: int,
    preprocessing: Preprocessing,
    threads: int,
    also: Callable[[int, Image.Image], object],
) -> None:
    """Decode and crop every image into its rows."""
    is_random = preprocessing.crop_mode == "paper"
    crop = _paper_crop(img_size) if is_random else _timm_crop(img_size, preprocessing)

    def fill(number: int) -> None:
        image = subset.images.image(number)
        also(number, image)
        for repeat in range(subset.repeats):
            view.write(
                number * subset.repeats + repeat, crop(image, subset.crop_seed(number, repeat))
            )

    # The paper's crops draw from torch's one generator, which threads would share.
    with ThreadPoolExecutor(1 if is_random else threads) as pool:
        for _ in pool.map(fill, range(len(subset.labels))):
            pass


def _room(temporary: Path, path: Path, subset: Subset, img_size: int) -> ViewWriter:
    """An empty view in a file that has its blocks."""
    shape = (len(subset.labels) * subset.repeats, img_size, img_size, 3)
    needed, free = math.prod(shape), shutil.disk_usage(path.parent).free
    if needed > max(free, LARGE_VIEW):
        raise ViewTooLarge(
            f"its view of {shape[0]} images at {img_size} x {img_size} pixels takes {size_in_words(needed)}, and "
            f"{path.parent} has {size_in_words(free)} free; take fewer images, a smaller img_size or another --cache"
        )
    return ViewWriter(temporary, shape)


def open_view(path: Path) -> StoredView:
    """A view, uint8 [n, h, w, 3], whose rows are read when they are asked for.

    Raises
    ------
    DamagedFile
        When it is not as it was made; making it again mends it.
    """
    problem = damage(path)
    if problem:
        raise DamagedFile(path, problem)
    return open_stored(path)


def part_view(
    cache: Path,
    dataset: str,
    root: Path | None,
    part: Part,
    img_size: int,
    preprocessing: Preprocessing,
) -> tuple[np.ndarray, np.ndarray]:
    """The view of one part of a data set, uint8 [n, h, w, 3], made unless it is there, and its labels, int64 [n]."""
    subset = select_subset(open_dataset(dataset, root, part))
    path = make_view(
        view_path(cache, subset.digest, img_size, preprocessing), subset, img_size, preprocessing
    )
    return open_view(path)[:], subset.labels


def drop_oldest_views(cache: Path, limit_gb: float, keep: set[Path]) -> list[Path]:
    """Remove views that nobody needs, least recently made first, until the others take at most ``limit_gb``."""
    stats = {}
    for path in (cache / "views").glob("*.npy"):
        with suppress(FileNotFoundError):  # another run dropped it
            stats[path] = path.stat()
    size = sum(stat.st_size for stat in stats.values())
    dropped = []
    for path, stat in sorted(stats.items(), key=lambda item: item[1].st_mtime):
        if size <= limit_gb * 1e9:
            break
        if path not in keep:
            size -= stat.st_size
            remove_checksummed(path)
            dropped.append(path)
    return dropped


def input_vector(image: Image.Image) -> np.ndarray:
    """An input X as a vector to be clustered: float32 [64 * 64 * 3] in 0 to 1, the image squashed."""
    shrunk = image.resize((CLUSTER_SIDE, CLUSTER_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(shrunk).ravel().astype(np.float32) / 255


def view_vectors(
    view: StoredView | np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray:
    """The paper's X: a view's normalised crops shrunk to 64 x 64 (nearest) and flattened, float32 [n, 3 * 64 * 64]."""
    nearest = np.floor(np.arange(CLUSTER_SIDE) * (view.shape[1] / CLUSTER_SIDE)).astype(int)
    vectors = np.empty((len(view), 3 * CLUSTER_SIDE * CLUSTER_SIDE), dtype=np.float32)
    for start in range(0, len(view), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        shrunk = view[rows][:, nearest][:, :, nearest].astype(np.float32) / 255
        centre, spread = np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
        normalised = (shrunk - centre) / spread
        vectors[rows] = normalised.transpose(0, 3, 1, 2).reshape(len(shrunk), -1)
    return vectors


def _timm_crop(
    img_size: int, preprocessing: Preprocessing
) -> Callable[[Image.Image, int], np.ndarray]:
    from timm.data import create_transform

    transform = create_transform(
        input_size=img_size,
        is_training=False,
        use_prefetcher=True,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
    )
    return lambda image, seed: np.asarray(transform(image)).transpose(1, 2, 0)


def _paper_crop(img_size: int) -> Callable[[Image.Image, int], np.ndarray]:
    import torch
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    transform = transforms.Compose(
        [
            transforms.Resize(img_size, interpolation=bicubic),
            transforms.RandomResizedCrop(img_size, scale=PAPER_SCALE, interpolation=bicubic),
        ]
    )

    def crop(image: Image.Image, seed: int) -> np.ndarray:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return np.asarray(transform(image))

    return crop
