"""Scores that others have proposed for comparing embeddings, with labels or without: one file per score.

Each module registers its functions as columns (`core.registry`); new modules are found by `run`. May import `core`.
"""
