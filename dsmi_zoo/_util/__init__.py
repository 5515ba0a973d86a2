"""General tools: text, paths, files, locks, settings, tables, processes.

Imports nothing else of the package.
"""
