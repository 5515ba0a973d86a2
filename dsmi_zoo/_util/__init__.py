"""What has nothing to do with the field: text, paths, files, locks, settings, tables, processes.

Imports nothing else of the package.
"""
