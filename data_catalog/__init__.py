"""What is measured: model catalogues, data sets and the shared subset of images."""

from .entries import ModelEntry
from .errors import InputError
from .models import load_models

__all__ = ["InputError", "ModelEntry", "load_models"]
