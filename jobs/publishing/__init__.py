"""Publication of a run as a folder that a web server or the hub can serve, and the check of such a folder.

May import `jobs.runs`, `reports.page` and `pipeline.store`.
"""
