"""Views: the subset's images, cropped and resized once for each distinct preprocessing, shared by all models."""

import os
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image

from data_catalog.datasets import LabelledImages
from data_catalog.models import Preprocessing
from pipeline.config import content_hash

CLUSTER_SIDE = 64  # the paper's script shrinks the inputs to 64 x 64 before it clusters them


def view_path(cache: Path, subset_digest: str, img_size: int, preprocessing: Preprocessing) -> Path:
    """Where the view of a subset stands; mean and std are no part of it."""
    crop = preprocessing.model_dump(include={"crop_pct", "crop_mode", "interpolation"})
    return cache / "views" / f"{content_hash(subset_digest, img_size, crop)}.npy"


def make_view(
    path: Path, images: LabelledImages, numbers: np.ndarray, img_size: int, preprocessing: Preprocessing
) -> Path:
    """Write the view as uint8 [n, h, w, 3], unless it is there, and return its path.

    Pixels are those of timm's evaluation transform (``timm.data.create_transform``) before normalisation.
    """
    if path.exists():
        return path
    from timm.data import create_transform

    transform = create_transform(
        input_size=img_size,
        is_training=False,
        use_prefetcher=True,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        view = open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(numbers), img_size, img_size, 3))
        for row, number in enumerate(numbers):
            view[row] = np.asarray(transform(images.image(int(number)))).transpose(1, 2, 0)
        view.flush()
        del view
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def open_view(path: Path) -> np.ndarray:
    """A view, memory-mapped: uint8 [n, h, w, 3]."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def input_vectors(images: LabelledImages, numbers: np.ndarray) -> np.ndarray:
    """The inputs X as vectors to be clustered: float32 [n, 64 * 64 * 3] in 0 to 1."""
    size = (CLUSTER_SIDE, CLUSTER_SIDE)
    shrunk = [np.asarray(images.image(int(n)).resize(size, Image.Resampling.BICUBIC)) for n in numbers]
    return np.stack(shrunk).reshape(len(numbers), -1).astype(np.float32) / 255
