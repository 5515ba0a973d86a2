"""Benchmark a model zoo by its representations: diffusion spectral entropy and mutual information against accuracy."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data_catalog.models import load_models
    from .jobs.api import run
    from .pipeline.lightning_callback import LightningMonitor as LightningMonitor
    from .pipeline.measures import (
        diffusion_spectral_entropy,
        diffusion_spectral_mutual_information,
        measure,
    )
    from .pipeline.monitor import RepresentationMonitor
    from .pipeline.score import score
    from .pipeline.store import read_results
    from .pipeline.trainer_callback import TrainerMonitor as TrainerMonitor

logging.getLogger(__name__).addHandler(logging.NullHandler())  # whoever wants to hear says so

# Without the callbacks, whose libraries need not be there: `from dsmi_zoo import *` must work all the same.
__all__ = [
    "RepresentationMonitor",
    "diffusion_spectral_entropy",
    "diffusion_spectral_mutual_information",
    "load_models",
    "measure",
    "read_results",
    "run",
    "score",
]

# Each is imported when it is first asked for: torch and pandas take seconds, and few need all of it.
_HOMES = {
    "LightningMonitor": "pipeline.lightning_callback",
    "RepresentationMonitor": "pipeline.monitor",
    "TrainerMonitor": "pipeline.trainer_callback",
    "diffusion_spectral_entropy": "pipeline.measures",
    "diffusion_spectral_mutual_information": "pipeline.measures",
    "load_models": "data_catalog.models",
    "measure": "pipeline.measures",
    "read_results": "pipeline.store",
    "run": "jobs.api",
    "score": "pipeline.score",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
