"""What all measures share: checks of the input, arrays of NumPy or a GPU, distances, threads, settings."""
