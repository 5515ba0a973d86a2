"""Networks: built from timm or a user's builder, their layers, and the forward pass up to a layer.

May import `weights` and `data_catalog`.
"""
