"""The page of a run and ``summary.json``: ``build.write_report`` reads the rows, and writes both and the figures.

May import every other room of the reports but `studies`.
"""
