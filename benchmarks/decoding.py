"""Images per second and core from JPEGs of ImageNet's size to a view, by several decoders and resizing methods.

    python benchmarks/decoding.py
    pip install --no-deps --target simd pillow-simd; PYTHONPATH=simd python benchmarks/decoding.py

The 200 JPEGs have quality 90 to 95; 150 are landscape (500 x 375 pixels) and 50 portrait. They are crops of
scikit-image's photographs, rescaled and flipped at random with a fixed seed. The methods take turns on one thread and
are timed in processor seconds; the fastest round of each counts. ``different`` is the share of values that differ from
those of timm's evaluation transform on Pillow's image, which a view must have.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL
import skimage.data
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.v2.functional import center_crop, resize

from dsmi_zoo.data_catalog.datasets.decoding import read_image
from dsmi_zoo.data_catalog.models.entry import Preprocessing
from dsmi_zoo.pipeline.embedding.views import timm_crop

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")
CROP_PCT, BICUBIC = 0.875, Image.Resampling.BICUBIC


def write_images(folder: Path, count: int) -> list[Path]:
    """Write the JPEGs."""
    random = np.random.default_rng(0)
    photographs = [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        width, height = (500, 375) if number % 4 else (375, 500)
        photograph = photographs[number % len(photographs)]
        scale = random.uniform(0.6, 1) * min(photograph.width / width, photograph.height / height)
        w, h = scale * width, scale * height
        x, y = random.uniform(0, photograph.width - w), random.uniform(0, photograph.height - h)
        image = photograph.resize((width, height), BICUBIC, box=(x, y, x + w, y + h))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image.save(path, quality=int(random.integers(90, 96)))
    return paths


def ways(size: int) -> dict[str, Callable[[Path], object]]:
    """Return the methods that turn a file into a row of the view, the reference first."""
    shorter = int(size / CROP_PCT)
    transform = create_transform(
        size, is_training=False, use_prefetcher=True, interpolation="bicubic", crop_pct=CROP_PCT
    )

    pipeline = timm_crop(
        size,
        Preprocessing(crop_pct=CROP_PCT, mean=(0, 0, 0), std=(1, 1, 1)),  # bicubic, center
    )

    def timm(image: Image.Image) -> np.ndarray:
        return np.asarray(transform(image)).transpose(1, 2, 0)

    def draft(path: Path) -> np.ndarray:
        image = Image.open(path)
        image.draft("RGB", (shorter, shorter))
        return timm(image)

    def box(path: Path) -> np.ndarray:
        image = Image.open(path)
        width, height = (int(shorter * side / min(image.size)) for side in image.size)
        x, y = round((width - size) / 2), round((height - size) / 2)
        across, down = image.width / width, image.height / height
        kept = (x * across, y * down, (x + size) * across, (y + size) * down)
        return np.asarray(image.resize((size, size), BICUBIC, box=kept))

    def decoded(path: Path) -> torch.Tensor:
        return decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB)

    def torchs(path: Path) -> np.ndarray:
        pixels = center_crop(resize(decoded(path), [shorter], BICUBIC), [size])
        return pixels.permute(1, 2, 0).numpy()

    return {
        "Pillow, timm's transform": lambda path: timm(Image.open(path).convert("RGB")),
        "the pipeline": lambda path: pipeline(read_image(path), 0),
        "Pillow, fewest copies": lambda path: np.asarray(
            center_crop(resize(Image.open(path), [shorter], BICUBIC), [size])
        ),
        "Pillow, draft mode": draft,
        "Pillow, only the crop (`box`)": box,
        "torchvision decodes, Pillow resizes": lambda path: timm(
            Image.fromarray(decoded(path).permute(1, 2, 0).numpy())
        ),
        "torchvision decodes, torch resizes": torchs,
        "Pillow decodes, nothing else": lambda path: Image.open(path).load(),
    }


def main() -> None:
    """Print the table of both view sizes."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    print(f"Pillow {PIL.__version__}")
    print("| way | view | images/s and core | different | at most by |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with TemporaryDirectory() as folder:
        paths = write_images(Path(folder), 200)
        for size in (224, 384):
            print_table(paths, size)


def print_table(paths: list[Path], size: int) -> None:
    """Time all methods, and compare their pixels with those of the first."""
    of_size = ways(size)
    seconds = dict.fromkeys(of_size, np.inf)
    for _ in range(5):
        for name, way in of_size.items():
            began = time.process_time()
            for path in paths:
                way(path)
            seconds[name] = min(seconds[name], time.process_time() - began)
    rows = {name: [way(path) for path in paths] for name, way in of_size.items()}
    expected = np.stack(next(iter(rows.values()))).astype(np.int16)
    for name, made in rows.items():
        figures = f"| {name} | {size} | {len(paths) / seconds[name]:.0f} |"
        if isinstance(made[0], np.ndarray):
            gaps = np.abs(np.stack(made) - expected)
            figures += f" {(gaps > 0).mean():.3%} | {gaps.max()} |"
        print(figures, flush=True)


if __name__ == "__main__":
    main()
