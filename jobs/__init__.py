"""Where it runs: the command line, drivers of runs, clusters, publishing."""
