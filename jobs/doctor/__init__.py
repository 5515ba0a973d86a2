"""What this machine, or a compute node of a cluster, has and lacks for a run: checks, each a small function."""
