"""The value of one score of an embedding."""

from typing import Any

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.catalog import UNDEFINED
from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore


def value_of(name: str, Z: Any, labels: Any = None, **settings: Any) -> Any:
    """Return the value of a score; raise UndefinedScore with the reason for no value."""
    values = measure(Z, labels, scores=name, **settings)
    if UNDEFINED in values:
        raise UndefinedScore(values[UNDEFINED])
    return values[name]
