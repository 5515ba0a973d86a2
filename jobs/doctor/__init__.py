"""``dsmi-zoo doctor``: what this machine, its GPUs and its Slurm have for a run, and what is missing.

May import `jobs.clusters` and `pipeline.weights`.
"""
