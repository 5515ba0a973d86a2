"""Weights that are downloaded: the cache on disk, the client of the hub, and waves within a disk budget.

May import `data_catalog.models` and `_util`.
"""
