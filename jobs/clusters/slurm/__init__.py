"""Workers and drivers as Slurm jobs: batch scripts, preloads, addresses.

May import `jobs.clusters`.
"""
