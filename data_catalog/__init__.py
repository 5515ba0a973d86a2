"""Catalogues of models, data sets, and the shared subset of images."""
