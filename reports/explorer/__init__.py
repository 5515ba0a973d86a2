"""The interactive scatter plot of the page, with Bokeh.

May import `reports.figures`, `reports.statistics` and `reports.wording`.
"""
