"""The digits zoo: 48 tiny timm models, to be trained on scikit-learn's handwritten digits."""

from .entries import ModelEntry, Preprocessing, TrainingRecipe
from .traits import kind_of

IMG_SIZE = 32

# Attention over a fixed grid must be told that the images have 32 x 32 pixels.
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

# (training images, epochs): from hardly trained to well trained, so that accuracies spread.
BUDGETS = ((100, 3), (900, 1), (900, 5))

PREPROCESSING = Preprocessing(crop_pct=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def digits_models(seed: int = 0) -> list[ModelEntry]:
    """The 48 entries; their accuracies are unknown until they are trained, on the split of the seed."""
    return [
        ModelEntry(
            model=f"{architecture}.{images}x{epochs}",
            architecture=architecture,
            family=family,
            kind=kind_of(family, architecture),
            img_size=IMG_SIZE,
            group=f"{images} images x {epochs} epoch{'s' if epochs > 1 else ''}",
            model_kwargs={"num_classes": 10, **kwargs},
            recipe=TrainingRecipe(
                dataset=f"digits:{seed}" if seed else "digits",
                train_images=images,
                epochs=epochs,
                batch_size=50,
                learning_rate=2e-3,
                weight_decay=0.01,
                seed=seed,
            ),
            preprocessing=PREPROCESSING,
            extras={"train_images": images, "epochs": epochs},
        )
        for images, epochs in BUDGETS
        for architecture, (family, kwargs) in ARCHITECTURES.items()
    ]
