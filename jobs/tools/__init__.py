"""Commands on catalogues, files, studies and finished runs: ``catalog``, ``measure``, ``validate``, ``time``, ...

May import `jobs.clusters`, `reports.studies` and the pipeline.
"""
