"""From a model and a view to the penultimate embedding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data_catalog.models import Preprocessing


@dataclass(frozen=True)
class Embedding:
    """A model's view of the subset.

    Attributes
    ----------
    values : float32 [n, d]
        The penultimate activations.
    predictions : int64 [n] or None
        The classifier's choices; None when the model has no classifier.
    """

    values: np.ndarray
    predictions: np.ndarray | None


def normalised(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 [n, h, w, 3] as the float32 [n, 3, h, w] that a model takes."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


@torch.inference_mode()
def embed(
    model: torch.nn.Module, view: np.ndarray, preprocessing: Preprocessing, device: torch.device, batch_size: int
) -> Embedding:
    """The penultimate embedding of a view, and the classifier's predictions.

    Parameters
    ----------
    model
        A timm model in evaluation mode; it is moved to ``device``.
    view : uint8 [n, h, w, 3]

    Raises
    ------
    ValueError
        When the pre-logits of the model are not one vector an image.
    """
    timm_model: Any = model.to(device)  # forward_features, forward_head and num_classes are timm's
    values, predictions = [], []
    for start in range(0, len(view), batch_size):
        pixels = torch.from_numpy(np.array(view[start : start + batch_size])).to(device)
        features = timm_model.forward_features(normalised(pixels, preprocessing))
        pre_logits = timm_model.forward_head(features, pre_logits=True)
        if pre_logits.ndim != 2:
            raise ValueError(f"the pre-logits have shape {tuple(pre_logits.shape)}, not one vector an image")
        values.append(pre_logits.float().cpu().numpy())
        if timm_model.num_classes > 0:
            predictions.append(timm_model.forward_head(features).argmax(dim=1).cpu().numpy())
    return Embedding(np.concatenate(values), np.concatenate(predictions) if predictions else None)
