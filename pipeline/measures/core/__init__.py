"""Shared code of all measures: checks of the input, arrays of NumPy or a GPU, distances, threads, settings."""
