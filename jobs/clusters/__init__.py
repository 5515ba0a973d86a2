"""Clusters: each module opens a Dask client and closes what it started; ``jobs.workers`` chooses one.

May import `pipeline.config` and `pipeline.engine`.
"""
