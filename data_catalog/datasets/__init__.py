"""Data sets of labelled images, and the subset of their images that all models share.

``registry.open_dataset`` opens one by its name; ``detection`` finds the form of a folder; ``subset`` draws the images.
May import `_util` and `data_catalog.models`.
"""
