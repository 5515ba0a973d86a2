"""scikit-learn's handwritten digits in three disjoint parts."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .base import Part, split_numbers

SPLIT_OF_SEED_0 = Path(__file__).parents[1] / "tables" / "digits-split.txt"
"""The part of each image by `split_numbers` with seed 0, which every run of the digits zoo needs."""


@cache
def digits_split(part: Part, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One of three disjoint, stratified parts of the 1,797 digits: 900 train, 450 test, 447 validation.

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
    """What ``load_digits`` returns, without the two seconds that importing scikit-learn takes; int64."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    return table[:, :-1], table[:, -1]
