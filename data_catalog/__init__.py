"""What is measured: model catalogues, data sets and the shared subset of images."""

from data_catalog.errors import InputError
from data_catalog.models import ModelEntry, load_models

__all__ = ["InputError", "ModelEntry", "load_models"]
