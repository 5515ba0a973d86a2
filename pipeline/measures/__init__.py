"""Measures of an embedding, in bits: pure functions of arrays, from Liao et al., arXiv 2312.04823."""

from pipeline.measures.entropy import diffusion_spectral_entropy, shannon_entropy
from pipeline.measures.mutual_information import (
    cluster_inputs,
    diffusion_spectral_mutual_information,
    shannon_mutual_information,
)
from pipeline.measures.registry import measure_all

__all__ = [
    "cluster_inputs",
    "diffusion_spectral_entropy",
    "diffusion_spectral_mutual_information",
    "measure_all",
    "shannon_entropy",
    "shannon_mutual_information",
]
