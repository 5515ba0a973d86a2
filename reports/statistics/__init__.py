"""Statistics over the rows of a run: correlations, intervals, regressions, rankings. No words and no files.

``summary.summarise`` calls the others. May import `pipeline.store` and `pipeline.measures`.
"""
