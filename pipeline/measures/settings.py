"""How an embedding is measured."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .estimate import TOLERANCE, Method, Precision
from .inputs import LARGEST


class MeasureSettings(BaseModel):
    """How an embedding is measured; ``sigma`` None means sqrt(d), the paper's choice.

    ``method``, ``precision`` and ``tolerance`` (bits) are those of the eigenvalues, not of the forward pass.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sigma: float | None = Field(default=None, ge=1 / LARGEST, le=LARGEST, allow_inf_nan=False)
    t: float = Field(default=1.0, ge=1 / LARGEST, le=LARGEST, allow_inf_nan=False)
    repetitions: int = Field(default=5, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    bins: int = Field(default=2, ge=1)
    null_permutations: int = Field(default=10, ge=1)
    method: Method = "auto"
    precision: Precision = "float32"
    tolerance: float = Field(default=TOLERANCE, gt=0, allow_inf_nan=False)
    own: tuple[str, ...] = ()

    @field_validator("sigma", mode="before")
    @classmethod
    def _default_sigma(cls, value: Any) -> Any:
        return None if value == "sqrt(d)" else value
