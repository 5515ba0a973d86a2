"""From images to an embedding: decoded views of the subset, forward passes, and networks that are trained here.

May import `networks`, `measures` (clusters of the inputs) and `data_catalog`.
"""
