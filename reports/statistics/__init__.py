"""Statistics over the rows of a run: correlations, intervals, regressions, rankings. No page text, no files.

``summary.summarise`` calls the others. May import `pipeline.store` and `pipeline.measures`.
"""
