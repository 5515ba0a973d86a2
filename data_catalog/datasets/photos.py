"""Patches of scikit-learn's two sample photographs: real colour images that need no download."""

from functools import cache

import numpy as np

SIDE = 16  # pixels of a patch
STRIPS = 5  # vertical parts of each photograph; a patch's class is the part that it is cut from


@cache
def photo_patches() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patches that do not overlap, of a temple and of a flower: 2,080 in ten classes.

    Returns
    -------
    images : uint8 [n, 16, 16, 3]
    labels : int64 [n]
        The photograph times 5, plus the strip.
    numbers : int64 [n]
    """
    from sklearn.datasets import load_sample_images

    patches, labels = [], []
    for number, photo in enumerate(load_sample_images().images):
        down, across = photo.shape[0] // SIDE, photo.shape[1] // SIDE
        cut = (
            photo[: down * SIDE, : across * SIDE]
            .reshape(down, SIDE, across, SIDE, 3)
            .swapaxes(1, 2)
        )
        patches.append(cut.reshape(-1, SIDE, SIDE, 3))
        labels.append(np.tile(number * STRIPS + np.arange(across) * STRIPS // across, down))
    images, classes = np.concatenate(patches), np.concatenate(labels)
    return images, classes.astype(np.int64), np.arange(len(classes))
