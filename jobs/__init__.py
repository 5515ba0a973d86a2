"""Where a run happens: the command line, the drivers of runs, clusters, publishing."""
