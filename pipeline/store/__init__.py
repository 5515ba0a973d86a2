"""The files of a run: ``run.json``, one Parquet file per entry, embeddings, and what a release holds.

May import `config`, `measures` (names of columns) and `data_catalog`.
"""
