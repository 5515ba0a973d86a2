"""``dsmi-zoo doctor``: check whether this machine, its GPUs and its Slurm have what a run needs.

May import `jobs.clusters` and `pipeline.weights`.
"""
