"""The command line, the drivers of runs, clusters, and publishing."""
