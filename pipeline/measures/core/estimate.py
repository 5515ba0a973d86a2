"""A measure with what its computation leaves uncertain, and which computation that was."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from dsmi_zoo._util.errors import InputError

Method = Literal["auto", "exact", "lanczos"]
Precision = Literal["float32", "float64"]

ESTIMATED_FROM = 512
"""Points up to which all eigenvalues cost no more than estimating their entropy."""

EXACT_UP_TO = 8192
"""Points up to which ``auto`` takes all eigenvalues: some 25 seconds on 2 cores, and 1.6 GB."""

TOLERANCE = 0.005
"""Bits: the standard error at which the approximate method stops."""

FLOAT32_FROM = 1024
"""Points from which float32 saves anything; fewer are always computed in float64."""


@dataclass(frozen=True)
class Estimate:
    """A measure in bits.

    ``standard_error``, in bits, is that of the computation: 0 for ``exact``, and for ``lanczos`` what its random
    probes, the quadrature and rounding leave open. It says nothing of other images: that is `dsmi_z_y_se`.
    """

    value: float
    standard_error: float
    method: str


def as_method(method: Any) -> Method:
    """Return the method if it is one."""
    if method not in get_args(Method):
        raise InputError(f"method is {method!r}; pass auto, exact or lanczos")
    chosen: Method = method
    return chosen


def as_precision(precision: Any) -> Precision:
    """Return the precision if it is one."""
    if precision not in get_args(Precision):
        raise InputError(f"precision is {precision!r}; pass float32 or float64")
    chosen: Precision = precision
    return chosen


def method_for(method: Method, n: int) -> str:
    """The method that is used for n points: ``exact`` or ``lanczos``."""
    if n <= ESTIMATED_FROM:
        return "exact"
    if method == "auto":
        return "exact" if n <= EXACT_UP_TO else "lanczos"
    return method


def precision_for(precision: Precision, n: int, t: float) -> Precision:
    """The precision that is used for n points at time t.

    A power below 1 makes much of eigenvalues that are rounding noise: it is always computed in float64.
    """
    return precision if n > FLOAT32_FROM and t >= 1 else "float64"
