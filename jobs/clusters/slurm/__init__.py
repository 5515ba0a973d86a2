"""Workers and drivers as Slurm jobs: batch scripts, addresses, and what a worker loads first.

May import `jobs.clusters`.
"""
