"""Catalogues of models: a built-in table or a user's CSV file becomes a list of ``ModelEntry``, which filters narrow.

May import `_util`.
"""
