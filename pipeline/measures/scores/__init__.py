"""Scores that others have proposed for comparing embeddings, with labels or without: one file per score.

A score's fixed numbers, such as how many neighbours vote, are constants at the top of its file. Each module registers
its functions as columns (`core.registry`); new modules are found by `run`. `nce` and `leep` are computed after the
forward pass, from predictions and probabilities that no kept embedding has. May import `core`.
"""
