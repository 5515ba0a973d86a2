"""Benchmark a model zoo by its representations: diffusion spectral entropy and mutual information against accuracy."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
