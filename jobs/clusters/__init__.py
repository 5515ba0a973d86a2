"""Clusters: `existing`, `local` and `slurm` open a Dask client and close what they start; ``jobs.workers`` chooses one.

`machine`, `profile` and `worker_log` help them. May import `pipeline.config` and `pipeline.engine`.
"""
