"""A measure with the standard error of its computation, and the choice between exact and estimated eigenvalues."""

from dataclasses import dataclass
from typing import Literal

Method = Literal["auto", "exact", "lanczos"]
Precision = Literal["float32", "float64"]

ESTIMATED_FROM = 512
"""Up to this many points, all eigenvalues cost no more than an estimate of their entropy."""

EXACT_UP_TO = 8192
"""Up to this many points, ``auto`` computes all eigenvalues: about 25 seconds on 2 cores, and 1.6 GB."""

TOLERANCE = 0.005
"""The standard error, in bits, at which the estimate stops."""

FLOAT32_FROM = 1024
"""Above this many points float32 is faster; fewer are always computed in float64."""


@dataclass(frozen=True)
class Estimate:
    """The value of a measure in bits, its standard error and its method.

    ``standard_error``, in bits, is that of the computation: 0 for ``exact``; for ``lanczos`` it covers random probes,
    quadrature and rounding. It does not cover the choice of images: `dsmi_z_y_se` does.
    """

    value: float
    standard_error: float
    method: str


def method_for(method: Method, n: int) -> str:
    """Return the method for n points: ``exact`` or ``lanczos``."""
    if n <= ESTIMATED_FROM:
        return "exact"
    if method == "auto":
        return "exact" if n <= EXACT_UP_TO else "lanczos"
    return method


def precision_for(precision: Precision, n: int, t: float) -> Precision:
    """Return the precision for n points at time t.

    A power below 1 amplifies eigenvalues that are rounding noise, so it is always computed in float64.
    """
    return precision if n > FLOAT32_FROM and t >= 1 else "float64"
