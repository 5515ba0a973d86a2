"""Where it runs: the command line, the clusters, and the life of a run."""
