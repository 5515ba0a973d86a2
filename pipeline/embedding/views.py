"""Views: the images of the subset, cropped and resized once per preprocessing, shared by all models."""

import logging
import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from dsmi_zoo._util.errors import DamagedFile, InputError
from dsmi_zoo._util.files import (
    NO_SPACE,
    content_hash,
    damage_problem,
    disk_full,
    make_unless_intact,
    move_checksummed,
    remove_checksummed,
)
from dsmi_zoo._util.text import size_in_words
from dsmi_zoo.data_catalog.datasets.base import Part
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import Subset, select_subset
from dsmi_zoo.data_catalog.models.entry import Preprocessing

log = logging.getLogger(__name__)

CLUSTER_SIDE = 64  # the paper's script shrinks the inputs to 64 x 64 before it clusters them
PAPER_SCALE = (0.6, 1.6)  # of the paper's random crops
TALL = 1.8  # Pillow 13 shrinks images vertically first if 2 or more times as high as wide
SUPPORT = {"bilinear": 1, "bicubic": 2, "lanczos": 3}  # of an interpolation, pixels on either side
ROWS_AT_ONCE = 64  # of a view in memory
# If a larger view does not fit, its entry fails; if a smaller one does not, the disk is full.
LARGE_VIEW_BYTES = 20 * 10**9


@dataclass(frozen=True)
class StoredView:
    """A view on disk, uint8 [n, h, w, 3], whose rows are read on demand.

    It is never mapped: a mapped file counts as memory of its process, and Dask would end a worker whose view exceeds
    its limit.
    """

    path: Path
    shape: tuple[int, ...]
    begins_at: int

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read these rows, uint8 [rows, h, w, 3]."""
        start, stop, step = rows.indices(len(self))
        read = np.fromfile(
            self.path,
            dtype=np.uint8,
            count=max(stop - start, 0) * self.bytes_of_a_row,
            offset=self.begins_at + start * self.bytes_of_a_row,
        )
        return read.reshape(-1, *self.shape[1:])[::step]

    @property
    def bytes_of_a_row(self) -> int:
        """Size of one image."""
        return math.prod(self.shape[1:])


def open_stored(path: Path) -> StoredView:
    """Return the view in a file of NumPy's format."""
    with path.open("rb") as file:
        version = npy.read_magic(file)
        assert version == (1, 0)
        shape, _, _ = npy.read_array_header_1_0(file)
        return StoredView(path, shape, file.tell())


class ViewTooLarge(InputError):
    """Raised when the disk has no room for a view, because its images are very large or very many."""


def view_path(cache: Path, subset_digest: str, img_size: int, preprocessing: Preprocessing) -> Path:
    """Return the file of the view of a subset; it does not depend on mean and std."""
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
    """Write the view as uint8 [n * repeats, h, w, 3], unless it exists, and return its path.

    Pixels are those of timm's evaluation transform (``timm.data.create_transform``) before normalisation; the crop
    mode ``paper`` is the paper's random crop, seeded by image and repeat. Of several processes that ask for it at
    once, one makes it and the others wait.

    Parameters
    ----------
    threads
        The number of images to decode and crop in parallel.
    also
        Called with each image's number and the decoded image, when the view is made.

    Raises
    ------
    InputError
        When an image cannot be decoded; the message names it.
    ViewTooLarge
        When the disk has no room for a very large view.
    DiskFull
        When the disk has no room for a view of ordinary size.
    """

    shape = (len(subset.labels) * subset.repeats, img_size, img_size, 3)

    def make() -> None:
        # Left by a process that was killed; this one holds the lock.
        for left in path.parent.glob(f".{path.stem}.*.tmp"):
            left.unlink(missing_ok=True)
        needed, free = math.prod(shape), shutil.disk_usage(path.parent).free
        if needed > max(free, LARGE_VIEW_BYTES):
            raise ViewTooLarge(
                f"its view of {shape[0]} images at {img_size} x {img_size} pixels takes {size_in_words(needed)}, "
                f"and {path.parent} has {size_in_words(free)} free; "
                "take fewer images, a smaller img_size or another --cache"
            )
        log.debug("making the view %s: %s images at %s pixels", path, len(subset.labels), img_size)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                header = {"shape": shape, "fortran_order": False, "descr": "|u1"}
                npy.write_array_header_1_0(file, header)
                file.flush()
                _fill(file, subset, img_size, preprocessing, threads, also)
            move_checksummed(temporary, path)
        except OSError as error:
            raise disk_full(path) if error.errno in NO_SPACE else error from None
        finally:
            temporary.unlink(missing_ok=True)

    make_unless_intact(path, "the view", "making it again", make)
    return path


def _fill(
    file: IO[bytes],
    subset: Subset,
    img_size: int,
    preprocessing: Preprocessing,
    threads: int,
    also: Callable[[int, Image.Image], object],
) -> None:
    """Decode every image and write its crops, in any order, behind the header of the file."""
    begins_at = file.tell()
    is_random = preprocessing.crop_mode == "paper"
    crop = _paper_crop(img_size) if is_random else timm_crop(img_size, preprocessing)

    def fill(number: int) -> None:
        image = subset.images.image(number)
        also(number, image)
        for repeat in range(subset.repeats):
            pixels = np.ascontiguousarray(crop(image, subset.crop_seed(number, repeat)))
            assert pixels.shape == (img_size, img_size, 3)
            assert pixels.dtype == np.uint8
            row = number * subset.repeats + repeat
            _write_at(file.fileno(), begins_at + row * pixels.nbytes, pixels)

    # The paper's crops draw from torch's global generator, which threads would share.
    with ThreadPoolExecutor(1 if is_random else threads) as pool:
        for _ in pool.map(fill, range(len(subset.labels))):
            pass


def _write_at(file: int, place: int, pixels: np.ndarray) -> None:
    rest = pixels.reshape(-1).data
    while rest:
        written = os.pwrite(file, rest, place)
        rest = rest[written:]
        place += written


def open_view(path: Path) -> StoredView:
    """Return a view, uint8 [n, h, w, 3], whose rows are read on demand.

    Raises
    ------
    DamagedFile
        When the file has changed since it was made; making it again repairs it.
    """
    problem = damage_problem(path)
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
    """Return the view of one part of a data set, uint8 [n, h, w, 3], made unless it exists, and int64 labels [n]."""
    subset = select_subset(open_dataset(dataset, root, part))
    path = make_view(
        view_path(cache, subset.digest, img_size, preprocessing), subset, img_size, preprocessing
    )
    return open_view(path)[:], subset.labels


def drop_oldest_views(cache: Path, limit_gb: float, keep: set[Path]) -> list[Path]:
    """Remove views that are not in ``keep``, oldest first, until the rest take at most ``limit_gb``."""
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
    """Return an input X as a vector for clustering: the image squashed to 64 x 64, float32 [64 * 64 * 3], 0 to 1."""
    shrunk = image.resize((CLUSTER_SIDE, CLUSTER_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(shrunk).ravel().astype(np.float32) / 255


def view_vectors(
    view: StoredView | np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray:
    """Return the paper's X: normalised crops shrunk to 64 x 64 (nearest) and flattened, float32 [n, 3 * 64 * 64]."""
    nearest = np.floor(np.arange(CLUSTER_SIDE) * (view.shape[1] / CLUSTER_SIDE)).astype(int)
    vectors = np.empty((len(view), 3 * CLUSTER_SIDE * CLUSTER_SIDE), dtype=np.float32)
    for start in range(0, len(view), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        shrunk = view[rows][:, nearest][:, :, nearest].astype(np.float32) / 255
        centre, spread = np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
        normalised = (shrunk - centre) / spread
        vectors[rows] = normalised.transpose(0, 3, 1, 2).reshape(len(shrunk), -1)
    return vectors


def timm_crop(
    img_size: int, preprocessing: Preprocessing
) -> Callable[[Image.Image, int], np.ndarray]:
    """Return a function that maps an RGB image (and an unused seed) to a view row by timm's evaluation transform."""
    from timm.data import create_transform

    transform = create_transform(
        input_size=img_size,
        is_training=False,
        use_prefetcher=True,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
    )
    shorter = math.floor(img_size / preprocessing.crop_pct)
    is_central = preprocessing.crop_mode == "center" and shorter >= img_size  # else it is padded

    def crop(image: Image.Image, seed: int) -> np.ndarray:
        if (
            is_central
            and image.height < TALL * image.width
            and preprocessing.interpolation in SUPPORT
        ):
            return central_crop(image, img_size, shorter, preprocessing.interpolation)
        return np.asarray(transform(image)).transpose(1, 2, 0)

    return crop


def central_crop(image: Image.Image, size: int, shorter: int, interpolation: str) -> np.ndarray:
    """Resize an RGB image's shorter side and crop its centre: timm's pixels, without computing most of those cut off.

    Pillow resizes horizontally, then vertically. The first step leaves out rows that the second does not read, and the
    second leaves out columns outside the crop. Pillow's own ``box`` would save more, but its corners are in single
    precision, which changes pixels. The image must be less than `TALL` times as high as wide.
    """
    resampling = Image.Resampling[interpolation.upper()]
    width, height = (int(shorter * side / min(image.size)) for side in image.size)
    x, y = round((width - size) / 2), round((height - size) / 2)
    scale = image.height / height
    margin = SUPPORT[interpolation] * max(scale, 1) + 1
    top, bottom = max(int(y * scale - margin), 0), math.ceil((y + size) * scale + margin)
    rows = image.crop((0, top, image.width, min(bottom, image.height)))
    columns = rows.resize((width, rows.height), resampling).crop((x, 0, x + size, rows.height))
    whole = Image.new("RGB", (size, image.height))
    whole.paste(columns, (0, top))
    return np.asarray(whole.resize((size, height), resampling).crop((0, y, size, y + size)))


def _paper_crop(img_size: int) -> Callable[[Image.Image, int], np.ndarray]:
    import torch
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    resize = transforms.Resize(img_size, interpolation=bicubic)
    random_crop = transforms.RandomResizedCrop(img_size, scale=PAPER_SCALE, interpolation=bicubic)

    def crop(image: Image.Image, seed: int) -> np.ndarray:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return np.asarray(random_crop(resize(image)))

    return crop
