"""Data sets that come installed: scikit-learn's digits and photographs, and Debian's Fashion-MNIST."""

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError

from .base import Part, split_numbers

SPLIT_OF_SEED_0 = Path(__file__).parents[1] / "tables" / "digits-split.txt"
"""The part of each digit by `split_numbers` with seed 0, which every run of the digits zoo needs."""

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
    # 0 to 16 shades of ink become 0 to 255.
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
        The photograph times 5, plus the strip.
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
    """Read the bytes after the header of an IDX file, packed or not; uint8 [count]."""
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
