"""The pages of ``dsmi-zoo validate``: rules declared beforehand, verdicts, figures.

May import every other package of the reports, and `pipeline.studies`.
"""
