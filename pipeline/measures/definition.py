"""What a measure is: a column of a row, and how it is computed from an embedding."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .context import MeasureContext
from .core.checks import UndefinedScore

Value = float | bool | str
Needs = Literal["embedding", "labels", "input_clusters", "image_pairs"]
"""What a measure is computed from; ``image_pairs`` are labels that give each class two images or more."""

Task = Literal["entropy", "spectrum", "distances", "decomposition", "values"]
"""What a measure shares with others: those of one task are computed one after the other, tasks beside each other."""


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
    ``needs`` says what must be there beside the embedding. ``error`` is a closed form of the score's standard error
    over images; without one it is taken over random halves of them: that column's measure is computed from its score
    ``of_halves``. A score that ``grows_with_images`` is larger for more images of the same classes, and its spread with
    it, so that halves tell its relative error.
    """

    compute: Callable[[MeasureContext], Value | None]
    error: Callable[[MeasureContext], float | None] | None = field(default=None, kw_only=True)
    grows_with_images: bool = field(default=False, kw_only=True)
    needs: Needs = field(default="labels", kw_only=True)
    task: Task = field(default="spectrum", kw_only=True)
    of_halves: "Measure | None" = field(default=None, kw_only=True)

    def can_be_computed(self, context: MeasureContext) -> bool:
        """Whether the context has what the measure needs."""
        if self.needs == "embedding":
            return True
        if self.needs == "input_clusters":
            return context.has_clusters
        if self.needs == "image_pairs":
            return context.has_image_pairs
        return context.has_labels

    def result(self, context: MeasureContext) -> Value | UndefinedScore | None:
        """The value, None where there is none, or why it is undefined; the context keeps it."""
        if self.name not in context.results:
            try:
                context.results[self.name] = (
                    self.compute(context) if self.can_be_computed(context) else None
                )
            except UndefinedScore as undefined:
                context.results[self.name] = undefined
        kept: Value | UndefinedScore | None = context.results[self.name]
        return kept
