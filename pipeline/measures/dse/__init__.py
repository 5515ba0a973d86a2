"""Diffusion spectral entropy and mutual information (Liao et al., arXiv 2312.04823) and their variants.

May import `core`.
"""
