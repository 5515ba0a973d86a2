"""Measures of a network's embedding while it trains, in plain PyTorch, Lightning or Hugging Face's Trainer.

May import `embedding`, `networks` and `measures`.
"""
