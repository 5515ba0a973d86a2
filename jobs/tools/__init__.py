"""Commands without a run: ``catalog``, ``measure`` and ``validate``.

May import `jobs.clusters`, `reports.studies` and the pipeline.
"""
