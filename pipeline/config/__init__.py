"""Settings of a run, from defaults, a TOML file, the command line or keywords.

May import `_util`, `data_catalog` and `pipeline.measures.core` (the settings of the measures).
"""
