"""The plan of a run: entries become jobs with identities, an order and an estimate of their cost.

A config goes in, a ``Plan`` comes out; nothing is downloaded or built. May import `config`, `store`, `weights`,
`networks`, `embedding` and `measures`.
"""
