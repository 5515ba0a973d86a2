"""Data sets of labelled images, and the subset of their images that all models share.

``registry`` opens one by its name, or recognises it by its folder; ``subset`` draws the images.
May import `_util` and `data_catalog.models`.
"""
