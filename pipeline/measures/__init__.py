"""Measures of an embedding, in bits: pure functions of arrays, from Liao et al., arXiv 2312.04823."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .entropy import (
        diffusion_spectral_entropy,
        diffusion_spectral_entropy_estimate,
        shannon_entropy,
    )
    from .estimate import Estimate
    from .input_clusters import cluster_inputs
    from .measuring import measure
    from .mutual_information import (
        diffusion_spectral_mutual_information,
        diffusion_spectral_mutual_information_estimate,
        shannon_mutual_information,
    )

__all__ = [
    "Estimate",
    "cluster_inputs",
    "diffusion_spectral_entropy",
    "diffusion_spectral_entropy_estimate",
    "diffusion_spectral_mutual_information",
    "diffusion_spectral_mutual_information_estimate",
    "measure",
    "shannon_entropy",
    "shannon_mutual_information",
]

# The command line reads this package's settings, and stays fast without NumPy.
_HOMES = {
    "Estimate": "estimate",
    "cluster_inputs": "input_clusters",
    "diffusion_spectral_entropy": "entropy",
    "diffusion_spectral_entropy_estimate": "entropy",
    "diffusion_spectral_mutual_information": "mutual_information",
    "diffusion_spectral_mutual_information_estimate": "mutual_information",
    "measure": "measuring",
    "shannon_entropy": "entropy",
    "shannon_mutual_information": "mutual_information",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
