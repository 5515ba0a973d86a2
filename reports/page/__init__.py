"""The page of a run and ``summary.json``: ``build.write_report`` reads the rows, and writes both and the figures.

The opening sentences are in ``context``; those of the page for choosing a model are in ``choice``.

May import every other package of the reports except `studies`.
"""
