"""Measures of an embedding, in bits: pure functions of arrays, from Liao et al., arXiv 2312.04823."""

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
from .registry import measure

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
