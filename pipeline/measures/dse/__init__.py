"""Diffusion spectral entropy and mutual information (Liao et al., arXiv 2312.04823), their variants, and the baseline.

Each module registers its functions as columns (`core.registry`). May import `core`.
"""
