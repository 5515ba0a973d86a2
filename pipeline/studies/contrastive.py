"""Self-supervised contrastive training (SimCLR)."""

from collections.abc import Callable
from typing import Any

import torch

from dsmi_zoo.data_catalog.models.entry import Preprocessing

from ..embedding.embed import normalised

TEMPERATURE = 0.5
PROJECTED = 64


def contrastive(
    model: Any, images: torch.Tensor, preprocessing: Preprocessing
) -> tuple[torch.nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    """Return the modules to train, which are the model and a projection head, and the loss of a batch of indices.

    Views are torchvision's random crops, rotations and changes of colour, without mirroring, which would spoil digits.
    The loss is NT-Xent between the projections of the pre-logits.

    Parameters
    ----------
    images : uint8 [n, h, w, 3]

    References
    ----------
    Chen et al., A simple framework for contrastive learning of visual representations (arXiv 2002.05709).
    """
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
    from torchvision.transforms import v2

    pixels = images.permute(0, 3, 1, 2).contiguous()
    side = pixels.shape[-1]
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(0.5, 1), antialias=True),
            v2.RandomRotation(15),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
        ]
    )
    d = model.head_hidden_size
    head = torch.nn.Sequential(
        torch.nn.Linear(d, d), torch.nn.ReLU(), torch.nn.Linear(d, PROJECTED)
    )
    loss = SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))

    def views(batch: torch.Tensor) -> torch.Tensor:
        drawn = torch.stack([augment(pixels[number]) for number in batch])  # one draw per image
        return normalised(drawn.permute(0, 2, 3, 1), preprocessing)

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        both = torch.cat([views(batch), views(batch)])
        projected = head(model.forward_head(model.forward_features(both), pre_logits=True))
        first, second = projected.chunk(2)
        return loss(first, second)

    return torch.nn.ModuleList([model, head]), loss_of
