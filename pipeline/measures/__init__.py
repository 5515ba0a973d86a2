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
    from .mutual_information import (
        cluster_inputs,
        diffusion_spectral_mutual_information,
        diffusion_spectral_mutual_information_estimate,
        shannon_mutual_information,
    )
    from .registry import measure_all

__all__ = [
    "Estimate",
    "cluster_inputs",
    "diffusion_spectral_entropy",
    "diffusion_spectral_entropy_estimate",
    "diffusion_spectral_mutual_information",
    "diffusion_spectral_mutual_information_estimate",
    "measure_all",
    "shannon_entropy",
    "shannon_mutual_information",
]

_MODULES = ("estimate", "entropy", "mutual_information", "registry")


def __getattr__(name: str) -> Any:
    """Import a measure when it is asked for: the command line reads the settings of this package, without NumPy."""
    if name in __all__:
        for module in _MODULES:
            found = getattr(import_module(f".{module}", __name__), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
