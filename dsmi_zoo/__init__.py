"""Benchmark a model zoo by its representations: diffusion spectral entropy and mutual information against accuracy."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data_catalog.models.registry import load_models
    from .jobs.runs.api import run
    from .pipeline.embedding.score import score
    from .pipeline.measures import (
        diffusion_spectral_entropy,
        diffusion_spectral_mutual_information,
        measure,
    )
    from .pipeline.monitor.hf_trainer import TrainerMonitor as TrainerMonitor
    from .pipeline.monitor.lightning import LightningMonitor as LightningMonitor
    from .pipeline.monitor.monitor import RepresentationMonitor
    from .pipeline.store.finetuned import read_finetuned
    from .pipeline.store.kept import embedding
    from .pipeline.store.run_folder import read_results
    from .pipeline.store.schema import by_name, rank


logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent until the caller adds one

# The callbacks are missing: `from dsmi_zoo import *` must work without the libraries that they need.
__all__ = [
    "RepresentationMonitor",
    "by_name",
    "diffusion_spectral_entropy",
    "diffusion_spectral_mutual_information",
    "embedding",
    "load_models",
    "measure",
    "rank",
    "read_finetuned",
    "read_results",
    "run",
    "score",
]

# Each module is imported on first use: torch and pandas take seconds, and few callers need all of them.
_HOMES = {
    "LightningMonitor": "pipeline.monitor.lightning",
    "RepresentationMonitor": "pipeline.monitor.monitor",
    "TrainerMonitor": "pipeline.monitor.hf_trainer",
    "by_name": "pipeline.store.schema",
    "diffusion_spectral_entropy": "pipeline.measures",
    "diffusion_spectral_mutual_information": "pipeline.measures",
    "embedding": "pipeline.store.kept",
    "load_models": "data_catalog.models.registry",
    "measure": "pipeline.measures",
    "rank": "pipeline.store.schema",
    "read_finetuned": "pipeline.store.finetuned",
    "read_results": "pipeline.store.run_folder",
    "run": "jobs.runs.api",
    "score": "pipeline.embedding.score",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
