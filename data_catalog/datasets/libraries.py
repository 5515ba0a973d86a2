"""Data sets that libraries include or open: scikit-learn's, Debian's Fashion-MNIST, torchvision's and timm's."""

import gzip
import hashlib
import io
import uuid
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shortened

from .base import NOTHING_LEFT_OUT, Account, Part, split_numbers
from .deep_pixels import is_deep

SPLIT_OF_SEED_0 = Path(__file__).parents[1] / "tables" / "digits-split.txt"
"""A file with the part of each digit by `split_numbers` with seed 0; every run of the digits zoo needs it."""

PATCH_SIDE = 16  # pixels
STRIPS = 5  # vertical parts of each photograph; the part that a patch is cut from is its class

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_SIDE = 28  # pixels
HOW_TO_GET_IT = (
    "install Debian's package dataset-fashion-mnist (apt-get install dataset-fashion-mnist), or pass torchvision's "
    "folder by --data-root"
)


@cache
def digits_split(part: Part, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one of three disjoint, stratified parts of the 1,797 digits: 900 train, 450 test, 447 validation.

    Returns
    -------
    images : uint8 [n, 8, 8]
    labels : int64 [n]
    numbers : int64 [n]
        Each image's number in scikit-learn's data set.
    """
    pixels, labels = _all_digits()
    if seed == 0:
        numbers = np.flatnonzero(np.array(SPLIT_OF_SEED_0.read_text().split()) == part)
    else:
        numbers = split_numbers(labels, part, train=900, test=450, seed=seed)
    # Levels of ink from 0 to 16 become 0 to 255.
    of_16_levels = pixels[numbers].reshape(-1, 8, 8)
    images = np.rint(of_16_levels * (255 / 16)).astype(np.uint8)
    return images, labels[numbers], numbers


@cache
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read what ``load_digits`` returns, int64, without the two seconds of importing scikit-learn."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    return table[:, :-1], table[:, -1]


@cache
def photo_patches() -> tuple[np.ndarray, np.ndarray]:
    """Cut the photographs of a temple and a flower into 2,080 disjoint patches in ten classes.

    Returns
    -------
    images : uint8 [n, 16, 16, 3]
    labels : int64 [n]
        5 times the photograph's number, plus the strip's number.
    """
    from sklearn.datasets import load_sample_images

    patches, labels = [], []
    for number, photo in enumerate(load_sample_images().images):
        down, across = photo.shape[0] // PATCH_SIDE, photo.shape[1] // PATCH_SIDE
        whole_patches = photo[: down * PATCH_SIDE, : across * PATCH_SIDE]
        grid = whole_patches.reshape(down, PATCH_SIDE, across, PATCH_SIDE, 3).swapaxes(1, 2)
        patches.append(grid.reshape(-1, PATCH_SIDE, PATCH_SIDE, 3))
        labels.append(np.tile(number * STRIPS + np.arange(across) * STRIPS // across, down))
    return np.concatenate(patches), np.concatenate(labels).astype(np.int64)


@cache
def fashion_split(
    part: Part, seed: int = 0, root: Path | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one of three disjoint, stratified parts of Fashion-MNIST.

    The part ``train`` is 900 of the 60,000 training images; ``test`` and ``validation`` are 2,000 and 500 of the
    10,000 test images.

    Parameters
    ----------
    part, seed
        As in ``digits_split``.
    root
        A folder with the four files, or torchvision's folder, which holds ``FashionMNIST/raw``; by default that of
        Debian's package.

    Returns
    -------
    images : uint8 [n, 28, 28]
    labels : int64 [n]
    numbers : int64 [n]
        Each image's number among the training or the test images.

    Raises
    ------
    InputError
        When a file is missing or damaged.

    References
    ----------
    Xiao, Rasul and Vollgraf, Fashion-MNIST (arXiv 1708.07747).
    """
    folder = root or DEBIAN
    if root is not None and (root / "FashionMNIST" / "raw").is_dir():
        folder = root / "FashionMNIST" / "raw"
    prefix, count = ("train", 60_000) if part == "train" else ("t10k", 10_000)
    content = _idx_values(folder, f"{prefix}-images-idx3-ubyte", 16, count * FASHION_SIDE**2)
    images = content.reshape(count, FASHION_SIDE, FASHION_SIDE)
    labels = _idx_values(folder, f"{prefix}-labels-idx1-ubyte", 8, count).astype(np.int64)
    if part == "train":
        numbers = split_numbers(labels, "train", train=900, test=2000, seed=seed)
    else:
        others = split_numbers(labels, "test", train=0, test=2500, seed=seed)
        numbers = others[split_numbers(labels[others], part, train=0, test=2000, seed=seed)]
    return images[numbers], labels[numbers], numbers


def _idx_values(folder: Path, name: str, header: int, count: int) -> np.ndarray:
    """Read the bytes after the header of an IDX file, gzipped or not; uint8 [count]."""
    paths = (folder / name, folder / f"{name}.gz")
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(
            f"the data set fashion is not in {folder}: {name} is missing; {HOW_TO_GET_IT}"
        )
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(header + count + 1)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {HOW_TO_GET_IT}") from None
    if len(content) != header + count:
        raise InputError(
            f"{path}: is not Fashion-MNIST's file of that name, by its size; {HOW_TO_GET_IT}"
        )
    return np.frombuffer(content, np.uint8, count, header)


TORCHVISION_SETS = {"cifar10": "CIFAR10", "mnist": "MNIST", "stl10": "STL10"}


@cache
def torchvision_images(
    name: str, root: Path, train: bool
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the training or the test images of a data set.

    Returns
    -------
    images : uint8 [n, h, w] or [n, h, w, 3]
    labels : int64 [n]
    classes : the classes' names

    Raises
    ------
    InputError
        When the files are missing or damaged.
    """
    opened = _opened(name, root, train, download=False)
    pixels = np.asarray(opened.data)
    if name == "stl10":
        pixels = pixels.transpose(0, 2, 3, 1)
    labels = opened.labels if name == "stl10" else opened.targets
    return pixels, np.asarray(labels, dtype=np.int64), tuple(opened.classes)


def download(name: str, root: Path) -> None:
    """Download a data set into ``root``, unless it is there."""
    for train in (True, False):
        _opened(name, root, train, download=True)


def _opened(name: str, root: Path, train: bool, download: bool) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION_SETS[name])
    part: dict[str, Any] = {"train": train}
    if name == "stl10":
        part = {"split": "train" if train else "test"}
    try:
        return kind(str(root), **part, download=download)
    except Exception as error:  # torchvision does not document what it raises for damaged files
        reason = shortened(str(error), 300) or type(error).__name__
        raise InputError(
            f"--dataset {name}: torchvision cannot open it in {root}: {reason}"
        ) from None


@dataclass(frozen=True)
class TimmImages:
    """A map-style data set opened by timm; an image's name is its index (``places``).

    Each process opens it once per ``opening``, a random token, because indices change when the owner adds images.
    """

    name: str
    source: str
    root: Path
    opening: str
    places: np.ndarray
    labels: np.ndarray
    classifier_width: int | None = None
    account: Account = NOTHING_LEFT_OUT

    @property
    def names(self) -> tuple[str, ...]:
        """The indices as text."""
        return tuple(f"{place:08d}" for place in self.places)

    @property
    def class_names(self) -> dict[int, str]:
        """The labels as text."""
        return {int(label): str(label) for label in np.unique(self.labels)}

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB."""
        place = int(self.places[number])
        try:
            image: Image.Image = _opened_by_timm(self.source, self.root, self.opening)[place][0]
            if is_deep(image):
                raise ValueError(
                    "it has more than 8 bits, which only --dataset imagefolder and csv read"
                )
            return image.convert("RGB")
        except Exception as error:  # timm does not document what its readers raise
            reason = shortened(str(error), 300) or type(error).__name__
            raise InputError(
                f"{self.name}: image {place} in {self.root} cannot be read: {reason}; repair it"
            ) from None

    def fingerprint(self, number: int) -> str:
        """Return the SHA-256 of the decoded pixels."""
        pixels = io.BytesIO()
        self.image(number).save(pixels, "bmp")
        return hashlib.sha256(pixels.getvalue()).hexdigest()

    def take(self, numbers: np.ndarray) -> Self:
        """Return only these images, in this order."""
        return replace(self, places=self.places[numbers], labels=self.labels[numbers])


def open_timm_dataset(source: str, root: Path) -> TimmImages:
    """Open the validation part of ``timm.data.create_dataset(source, root)``.

    Raises
    ------
    InputError
        When timm cannot open it, or can only stream it.
    """
    opening = uuid.uuid4().hex
    try:
        opened = _opened_by_timm(source, root, opening)
        count = len(opened)
        labels = np.array([int(opened[i][1]) for i in range(count)], dtype=np.int64)
    except Exception as error:  # as above
        reason = shortened(str(error), 300) or type(error).__name__
        raise InputError(
            f"--dataset timm:{source}: timm cannot open it in {root}: {reason}"
        ) from None
    return TimmImages(f"timm:{source}", source, root, opening, np.arange(count), labels)


@lru_cache(maxsize=2)
def _opened_by_timm(source: str, root: Path, opening: str) -> Any:
    from PIL import EpsImagePlugin
    from timm.data import create_dataset

    # timm lets Pillow read any format, and for EPS it would start Ghostscript.
    EpsImagePlugin.gs_binary = False
    # Images are converted by us: timm would clip 16-bit values, and replace a damaged image with the next one.
    return create_dataset(
        source,
        root=str(root),
        split="validation",
        is_training=False,
        download=False,
        input_img_mode="",
    )
