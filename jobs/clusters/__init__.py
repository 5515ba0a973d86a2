"""Clusters: each module opens a Dask client and closes what it started; ``opening.open_workers`` chooses.

May import `pipeline.config` and `pipeline.engine`.
"""
