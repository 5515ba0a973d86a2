"""Catalogues of models: built-in tables and users' files as lists of ``ModelEntry``, and filters on them.

May import `_util`.
"""
