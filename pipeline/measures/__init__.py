"""Measures of an embedding, in bits: pure functions of arrays, from Liao et al., arXiv 2312.04823."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.exact_or_estimated import Estimate
    from .dse.classic import shannon_entropy, shannon_mutual_information
    from .dse.entropy import diffusion_spectral_entropy, diffusion_spectral_entropy_estimate
    from .dse.mutual_information import (
        diffusion_spectral_mutual_information,
        diffusion_spectral_mutual_information_estimate,
    )
    from .input_clusters import cluster_inputs
    from .run import measure


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

# Loaded on demand: the command line reads this package's settings, and is fast without NumPy.
_HOMES = {
    "Estimate": "core.exact_or_estimated",
    "cluster_inputs": "input_clusters",
    "diffusion_spectral_entropy": "dse.entropy",
    "diffusion_spectral_entropy_estimate": "dse.entropy",
    "diffusion_spectral_mutual_information": "dse.mutual_information",
    "diffusion_spectral_mutual_information_estimate": "dse.mutual_information",
    "measure": "run",
    "shannon_entropy": "dse.classic",
    "shannon_mutual_information": "dse.classic",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
