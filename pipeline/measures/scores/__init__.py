"""Scores that others have proposed to compare embeddings with labels, or without.

May import `core`.
"""
