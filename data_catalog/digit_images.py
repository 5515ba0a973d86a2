"""scikit-learn's handwritten digits in three disjoint parts."""

from functools import cache

import numpy as np

from .images import Part, split_numbers


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
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    numbers = split_numbers(labels, part, train=900, test=450, seed=seed)
    # 0 to 16 shades of ink become 0 to 255.
    of_16_levels = pixels[numbers].reshape(-1, 8, 8)
    images = np.rint(of_16_levels * (255 / 16)).astype(np.uint8)
    return images, labels[numbers].astype(np.int64), numbers
