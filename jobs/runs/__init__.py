"""Operations on a run: compute, resume, search, merge, remeasure, submit, report.

May import `jobs.clusters`, `reports.page` and the pipeline.
"""
