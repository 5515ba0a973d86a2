"""The zoos that the pipeline trains: the same 48 tiny timm models, on handwritten digits and on Fashion-MNIST."""

import re

from .entry import ModelEntry, Preprocessing, TrainingRecipe
from .taxonomy import kind_of

IMG_SIZE = 32

# Attention over a fixed grid needs the size of the images.
_VIT = {"img_size": IMG_SIZE, "patch_size": 8}
ARCHITECTURES: dict[str, tuple[str, dict[str, int]]] = {
    "test_byobnet": ("byobnet", {}),
    "test_coatnet": ("maxxvit", {"img_size": IMG_SIZE}),
    "test_convnext": ("convnext", {}),
    "test_convnext2": ("convnext", {}),
    "test_convnext3": ("convnext", {}),
    "test_efficientnet": ("efficientnet", {}),
    "test_efficientnet_evos": ("efficientnet", {}),
    "test_efficientnet_gn": ("efficientnet", {}),
    "test_efficientnet_ln": ("efficientnet", {}),
    "test_mambaout": ("mambaout", {}),
    "test_nfnet": ("nfnet", {}),
    "test_resnet": ("resnet", {}),
    "test_vit": ("vision_transformer", _VIT),
    "test_vit2": ("vision_transformer", _VIT),
    "test_vit3": ("vision_transformer", _VIT),
    "test_vit4": ("vision_transformer", _VIT),
}

# (training images, epochs): from hardly trained to well trained, to spread the accuracies.
BUDGETS = ((100, 3), (900, 2), (900, 5))

PREPROCESSING = Preprocessing(
    crop_pct=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)

TRAINED_ZOOS = ("digits", "fashion")
"""Catalogues, named after the data set on which their networks are trained and measured."""


def seeded_zoo(name: str) -> tuple[str, int] | None:
    """Return the zoo and the seed of ``digits`` or ``fashion:3``; None for any other name."""
    match = re.fullmatch(rf"({'|'.join(TRAINED_ZOOS)})(?::([1-9]\d{{0,8}}))?", name)
    return (match[1], int(match[2] or 0)) if match else None


def trained_models(zoo: str, seed: int = 0) -> list[ModelEntry]:
    """Return the 48 entries of a zoo; their accuracies are unknown until they are trained.

    Parameters
    ----------
    zoo
        One of ``TRAINED_ZOOS``.
    seed
        Determines the split of the images, the initial weights, and the order of the batches.
    """
    entries = []
    for images, epochs in BUDGETS:
        recipe = TrainingRecipe(
            dataset=f"{zoo}:{seed}" if seed else zoo,
            train_images=images,
            epochs=epochs,
            batch_size=50,
            learning_rate=2e-3,
            weight_decay=0.01,
            seed=seed,
        )
        for architecture, (family, arguments) in ARCHITECTURES.items():
            entry = ModelEntry(
                model=f"{architecture}.{images}x{epochs}",
                architecture=architecture,
                family=family,
                kind=kind_of(family, architecture),
                img_size=IMG_SIZE,
                group=f"{images} images x {epochs} epochs",
                model_kwargs={"num_classes": 10, **arguments},
                recipe=recipe,
                preprocessing=PREPROCESSING,
                extras={"train_images": images, "epochs": epochs},
            )
            entries.append(entry)
    return entries
