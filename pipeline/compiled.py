"""A network's forward pass, compiled by torch: slow to begin with, then faster."""

from typing import Any

import torch

from ..data_catalog.errors import InputError


def compile_features(model: Any) -> None:
    """Have a timm model's features computed by compiled code, from the first batch on; all batches are of one size."""
    model.forward_features = torch.compile(model.forward_features)


def filled(images: torch.Tensor, size: int) -> torch.Tensor:
    """The images [n, c, h, w] with the last one repeated until there are ``size``, channels last.

    For another size, and for another order in memory, the network would be compiled anew.
    """
    again = images[-1:].expand(size - len(images), *images.shape[1:])
    return torch.cat([images, again]).contiguous(memory_format=torch.channels_last)


def cannot_compile(error: Exception) -> InputError:
    """What to tell of an error in a compiled network's first batch."""
    reason = str(error).strip().partition("\n")[0][:200]
    return InputError(
        f"--compile: torch cannot compile this network here ({type(error).__name__}: {reason})"
    )
