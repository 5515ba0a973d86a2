"""Figures, drawn with Matplotlib.

May import `reports.statistics` and `reports.wording`.
"""
