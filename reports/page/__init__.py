"""The page of a run and ``summary.json``: ``build.write_report`` reads the rows, and writes both and the figures.

The opening sentences are in ``context``, those of a choice between models in ``choice``.

May import every other room of the reports but `studies`.
"""
