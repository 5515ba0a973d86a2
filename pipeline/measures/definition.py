"""What a measure is: a column of a row, and how it is computed from an embedding."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .context import MeasureContext

Value = float | bool | str
Needs = Literal["embedding", "labels", "input_clusters", "image_pairs"]
"""What a measure is computed from; ``image_pairs`` are labels that give each class two images or more."""


@dataclass(frozen=True)
class Score:
    """A column that models can be compared by: its name, a title for plots, its unit and its meaning.

    The unit is "bits", "nats", "%", "pixels", "flag" (true or false), "text" or ""; ``lower_is_better`` says which end
    is the good one.
    """

    name: str
    title: str
    unit: str
    meaning: str
    lower_is_better: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Measure(Score):
    """A score that is computed from an embedding.

    ``compute`` takes what the measures of one embedding share, and returns None where the score is undefined for it;
    ``needs`` says what must be there beside the embedding, ``takes_entropy`` whether it takes the entropy of all
    points, which may be computed beside the other measures. ``error`` is a closed form of the score's standard error
    over images; without one it is taken over random halves of them. A score that ``grows_with_images`` is larger for
    more images of the same classes, and its spread with it, so that halves tell its relative error.
    """

    compute: Callable[[MeasureContext], Value | None]
    error: Callable[[MeasureContext], float | None] | None = field(default=None, kw_only=True)
    grows_with_images: bool = field(default=False, kw_only=True)
    needs: Needs = field(default="labels", kw_only=True)
    takes_entropy: bool = field(default=False, kw_only=True)

    def can_be_computed(self, context: MeasureContext) -> bool:
        """Whether the context has what the measure needs."""
        if self.needs == "embedding":
            return True
        if self.needs == "input_clusters":
            return context.has_clusters
        if self.needs == "image_pairs":
            return context.has_image_pairs
        return context.has_labels
